# SPDX-License-Identifier: GPL-2.0
#
# Kernel instructions of an I/O and its interrupt by number of queues.
# perf/charts.py sets these variables first: $ours and $stock (queues, instructions),
# and the colours ink, paper, faint and accent.

set terminal pngcairo size 1000,560 font "DejaVu Sans,17" background rgb paper
set encoding utf8
set border 3 linecolor rgb faint
set tics nomirror textcolor rgb ink
set key center left textcolor rgb ink
set xlabel "queues" textcolor rgb ink
set ylabel "kernel instructions per I/O and interrupt" textcolor rgb ink
set grid y linecolor rgb faint linewidth 0.3
set logscale x 2
set xtics (1, 2, 4, 8, 16, 32, 64)
set xrange [0.9:72]
set yrange [0:*]

plot $stock using 1:2 with linespoints pointtype 7 pointsize 1.5 linewidth 3 \
		linecolor rgb "#d9843b" title "in-tree driver", \
     $ours using 1:2 with linespoints pointtype 7 pointsize 1.5 linewidth 3 \
		linecolor rgb accent title "our driver"
