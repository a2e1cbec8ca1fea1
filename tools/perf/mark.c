// SPDX-License-Identifier: GPL-2.0
/* Execute the mark instruction, at which insncount writes its counts. */

int main(void)
{
	__asm__ volatile("xchg %bx, %bx");
	return 0;
}
