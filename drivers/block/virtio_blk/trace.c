// SPDX-License-Identifier: GPL-2.0
/*
 * The trace points' one definition; see trace.h.
 */

#define CREATE_TRACE_POINTS
#include "trace.h"
