/* SPDX-License-Identifier: GPL-2.0 */
/* Add devices to the vDPA bus, VDUSE's if no management device is named, and delete them. */
#ifndef VBLKSIM_VDPA_H
#define VBLKSIM_VDPA_H

/* All return 0 or the error after the driver's probe or remove has ended, during
 * which the device must answer. */
int vdpa_add_to(const char *management, const char *name);
int vdpa_add(const char *name);
int vdpa_delete(const char *name);

#endif /* VBLKSIM_VDPA_H */
