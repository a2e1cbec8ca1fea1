/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A boot sector that writes, reads and compares its disk by INT 13h.
 *
 * The firmware drives the disk, by polling and with one virtqueue.  The sector writes
 * REQUESTS times 8 KiB from FIRST on, reads all of it again and compares.  A dword of the
 * disk has the value of its number times FACTOR, which a host can compute as well.
 *
 * It prints to QEMU's debug console and ends QEMU by isa-debug-exit: with "ok" and
 * status 33, or with the reason and status 35.
 */

#define FIRST		2048		/* sector */
#define REQUESTS	64
#define SECTORS		16		/* of a request */
#define FACTOR		0x9e3779b1
#define DWORDS		(SECTORS * 128)
#define CONSOLE		0xe9
#define EXIT		0xf4

/* Neither buffer begins at a sector's or a page's boundary. */
#define BUFFER		0x10
#define WRITE_SEG	0x1000
#define READ_SEG	0x2000
#define PARAMETERS	0x600		/* in segment 0 */

	.code16
	.globl	_start
_start:
	ljmp	$0, $1f
1:	xorw	%ax, %ax
	movw	%ax, %ss
	movw	$_start, %sp
	movw	%ax, %ds
	cld
	movb	%dl, drive

	/* The capacity, as the firmware has read it from the device. */
	movw	$PARAMETERS, %si
	movw	$30, (%si)
	movb	$0x48, %ah
	int	$0x13
	movw	$no_parameters, %si
	jc	fail
	movw	$capacity, %si
	call	print
	movl	PARAMETERS + 16, %eax
	call	print_number

	/* All writes come first, so that no read can be answered from the last write. */
	movw	$REQUESTS, %bp
2:	call	fill
	movw	$WRITE_SEG, segment
	movb	$0x43, %ah
	movw	$no_write, %si
	call	transfer
	addl	$SECTORS, sector
	decw	%bp
	jnz	2b

	movl	$FIRST, sector
	movw	$REQUESTS, %bp
3:	call	clear
	movw	$READ_SEG, segment
	movb	$0x42, %ah
	movw	$no_read, %si
	call	transfer
	call	fill
	call	compare
	addl	$SECTORS, sector
	decw	%bp
	jnz	3b

	movw	$ok, %si
	call	print
	movb	$16, %al
	jmp	quit

/* Print the reason at %si, the sector and the firmware's error in %ah, and end QEMU. */
fail:	movb	%ah, %bl
	call	print
	movl	sector, %eax
	call	print_number
	movzbl	%bl, %eax
	call	print_number
	movb	$17, %al
quit:	outb	%al, $EXIT
	cli
	hlt

/* Do a request with the function %ah; the reason of a failure is at %si. */
transfer:
	pushw	%si
	movb	$0, %al
	movb	drive, %dl
	movw	$packet, %si
	movw	$SECTORS, count
	int	$0x13
	popw	%si
	jc	fail
	ret

/* Put what the request at `sector` must have into the buffer for writes. */
fill:	movw	$WRITE_SEG, %ax
	movw	%ax, %es
	movw	$BUFFER, %di
	movw	$DWORDS, %cx
	imull	$128, sector, %eax
	imull	$FACTOR, %eax, %eax
1:	stosl
	addl	$FACTOR, %eax
	loop	1b
	ret

clear:	movw	$READ_SEG, %ax
	movw	%ax, %es
	movw	$BUFFER, %di
	movw	$DWORDS, %cx
	xorl	%eax, %eax
	rep stosl
	ret

/* Compare the two buffers. */
compare:
	movw	$WRITE_SEG, %ax
	pushw	%ds
	movw	%ax, %ds
	movw	$READ_SEG, %ax
	movw	%ax, %es
	movw	$BUFFER, %si
	movw	%si, %di
	movw	$DWORDS, %cx
	repe cmpsl
	popw	%ds
	movw	$differs, %si
	jne	fail
	ret

/* Print the text at %si, or %eax in hexadecimal and the end of the line. */
print:	lodsb
	testb	%al, %al
	jz	1f
	outb	%al, $CONSOLE
	jmp	print
1:	ret

print_number:
	movw	$8, %cx
2:	roll	$4, %eax
	pushl	%eax
	andb	$15, %al
	cmpb	$10, %al
	sbbb	$0x69, %al
	das
	outb	%al, $CONSOLE
	popl	%eax
	loop	2b
	movb	$'\n', %al
	outb	%al, $CONSOLE
	ret

capacity:	.asciz	"capacity "
no_parameters:	.asciz	"no parameters of the disk: "
no_write:	.asciz	"a write failed: "
no_read:	.asciz	"a read failed: "
differs:	.asciz	"other data than was written: "
ok:		.asciz	"ok\n"
drive:		.byte	0

	.balign	4
packet:		.byte	16, 0
count:		.word	0
		.word	BUFFER
segment:	.word	0
sector:		.quad	FIRST

	.org	510
	.word	0xaa55
