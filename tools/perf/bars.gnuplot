# SPDX-License-Identifier: GPL-2.0
#
# What each device adds to an I/O: kernel instructions above null_blk's, as horizontal
# bars with their values, in a group for each job.  perf/charts.py sets these variables
# first: $bars (instructions, y, device from 1, value as text), $jobs (y, name),
# devices[] (names), count (of devices), bottom (the largest y), least and most (the
# smallest and the largest number of instructions), headline (a second line of the title)
# and height in pixels.  host/page.py adds title, foot, and the colours ink, paper, faint
# and accent.

set terminal pngcairo noenhanced size 1600,height font "DejaVu Sans,15" background rgb paper
set encoding utf8
set margins screen 0.26, screen 0.96, screen 115.0 / height, screen 1 - 135.0 / height
set border 1 linecolor rgb faint
set tics nomirror textcolor rgb ink
set grid x linecolor rgb faint linewidth 0.3
unset ytics
set yrange [bottom + 0.6:-0.9]
# Room for the values beside the bars.
set xrange [least < 0 ? least - 0.09 * most : 0:most * 1.09]
set xlabel "kernel instructions per I/O above null_blk's (lower is better)" \
	textcolor rgb ink
set style fill solid 0.95 noborder
array shade[4] = ["#d9843b", "#5b9e6f", "#a98bc4", accent]
# Our driver is the last device.
colour(n) = n == count ? accent : shade[int(n)]

set label 1 title at screen 0.015, 1 - 36.0 / height left font ",24" textcolor rgb ink
set label 2 headline at screen 0.015, 1 - 72.0 / height left font ",17" textcolor rgb ink
set label 3 foot at screen 0.015, 24.0 / height left font ",13" textcolor rgb faint
do for [n = 1:count] {
	set label 10 + n "■ ".devices[n] at screen 0.26 + (n - 1) * 0.125, \
		1 - 112.0 / height left textcolor rgb colour(n)
}
set arrow from 0, graph 0 to 0, graph 1 nohead front linecolor rgb ink

plot for [n = 1:count] $bars using ($3 == n ? $1 / 2.0 : NaN):2:(abs($1) / 2.0):(0.4) \
		with boxxyerror linecolor rgb colour(n) notitle, \
	$bars using ($1 >= 0 ? $1 : NaN):2:4 with labels left offset 0.7, 0 \
		textcolor rgb ink notitle, \
	$bars using ($1 < 0 ? $1 : NaN):2:4 with labels right offset -0.7, 0 \
		textcolor rgb ink notitle, \
	$jobs using (least < 0 ? least - 0.09 * most : 0):1:2 with labels right \
		offset -1.5, 0 textcolor rgb ink notitle
