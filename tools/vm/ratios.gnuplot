# SPDX-License-Identifier: GPL-2.0
#
# IOPS of our driver divided by IOPS of the in-tree driver, by job and number of
# queues.  vm/report.py sets these variables first: $rounds (row, ratio), $medians
# (row, ratio, ratio as text, queues), $jobs (the first row of each, name), reach
# (the largest ratio to show, and the inverse of the smallest), rounds, and the
# colours ink, paper, faint and accent.

set terminal pngcairo size 1000,560 font "DejaVu Sans,19" background rgb paper
set encoding utf8
set margins screen 0.21, screen 0.87, screen 0.24, screen 0.97
unset key

set border 1 linecolor rgb faint
set tics nomirror textcolor rgb ink
set xlabel sprintf("IOPS, ours ÷ in-tree driver    (dot: one of %d rounds, bar: median)", rounds) \
	textcolor rgb ink font ",17" offset screen -0.02, 0

set logscale x
set xrange [1 / reach:reach]
if (reach > 2.2) {
	set xtics ("⅛" 0.125, "¼" 0.25, "½" 0.5, "1" 1, "2" 2, "4" 4, "8" 8)
} else {
	set xtics ("0.5" 0.5, "0.67" 2 / 3.0, "0.8" 0.8, "1" 1, "1.25" 1.25, "1.5" 1.5, "2" 2)
}
set yrange [4.1:-1]
unset ytics

set arrow from 1, graph 0 to 1, graph 1 nohead back linecolor rgb faint
set label "slower ←" at 1, graph 1 right offset -1,-0.6 textcolor rgb faint
set label "→ faster" at 1, graph 1 left offset 1,-0.6 textcolor rgb faint
set label "median" at reach, graph 1 left offset 1.5,-0.6 textcolor rgb faint

plot $rounds using 2:1 with points pointtype 7 pointsize 1.8 linecolor rgb "#80".accent[2:], \
     $medians using 2:($1 - 0.25):(0):(0.5) with vectors nohead linewidth 5 linecolor rgb accent, \
     $medians using (reach):1:3 with labels left offset 1.5,0 textcolor rgb accent, \
     $medians using (1 / reach):1:4 with labels right offset -1.5,0 textcolor rgb ink, \
     $jobs using (1 / reach):($1 - 0.7):2 with labels right offset -1.5,0 font ",17" textcolor rgb faint
