# SPDX-License-Identifier: GPL-2.0
#
# Kernel instructions of an I/O and its interrupt by number of queues.
# perf/charts.py sets these variables first: $ours and $stock (queues, instructions).
# host/page.py adds title, foot, and the colours ink, paper, faint and accent.

set terminal pngcairo size 1600,760 font "DejaVu Sans,17" background rgb paper
set encoding utf8
set margins screen 0.1, screen 0.78, screen 0.2, screen 0.84
set border 3 linecolor rgb faint
set tics nomirror textcolor rgb ink
# The names stand beside the ends of the lines.
unset key
set xlabel "queues" textcolor rgb ink
set ylabel "kernel instructions per I/O and interrupt" textcolor rgb ink
set grid y linecolor rgb faint linewidth 0.3
set logscale x 2
set xtics (1, 2, 4, 8, 16, 32, 64)
set xrange [0.9:72]
set yrange [0:*]
set label 1 title at screen 0.015, 0.95 left font ",24" textcolor rgb ink
set label 2 foot at screen 0.015, 0.035 left font ",13" textcolor rgb faint
last(x, y, name) = x == highest ? sprintf("%s: %.0f", name, y) : ""
stats $ours using 1 nooutput
highest = STATS_max

plot $stock using 1:2 with linespoints pointtype 7 pointsize 1.5 linewidth 3 \
		linecolor rgb "#d9843b", \
     $ours using 1:2 with linespoints pointtype 7 pointsize 1.5 linewidth 3 \
		linecolor rgb accent, \
     $stock using 1:2:(last($1, $2, "in-tree driver")) with labels left \
		offset 1.5, 0.3 textcolor rgb "#d9843b", \
     $ours using 1:2:(last($1, $2, "our driver")) with labels left \
		offset 1.5, -0.3 textcolor rgb accent
