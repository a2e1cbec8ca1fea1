# SPDX-License-Identifier: GPL-2.0
#
# IOPS of our driver divided by IOPS of the in-tree driver, by job and number of
# queues.  run/report.py sets these variables first: $rounds (row, ratio), $medians
# (row, ratio, ratio as text, queues, conclusion), $jobs (the first row of each, name) and
# reach (the largest ratio to show, and the inverse of the smallest).  host/page.py adds
# title, foot, and the colours ink, paper, faint and accent.

set terminal pngcairo noenhanced size 1600,800 font "DejaVu Sans,19" background rgb paper
set encoding utf8
set margins screen 0.17, screen 0.76, screen 0.21, screen 0.8
unset key
set label 1 title at screen 0.015, 0.945 left font ",24" textcolor rgb ink
set label 2 foot at screen 0.015, 0.035 left font ",14" textcolor rgb faint

set border 1 linecolor rgb faint
set tics nomirror textcolor rgb ink
set xlabel "ratio of one round (dot), median of the rounds (bar)" textcolor rgb ink font ",17"

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
set label "slower ←" at 1, graph 1 right offset -1,0.8 textcolor rgb faint
set label "→ faster" at 1, graph 1 left offset 1,0.8 textcolor rgb faint
set label "median" at reach, graph 1 left offset 1.5,0.8 textcolor rgb faint

plot $rounds using 2:1 with points pointtype 7 pointsize 1.8 linecolor rgb "#80".accent[2:], \
     $medians using 2:($1 - 0.25):(0):(0.5) with vectors nohead linewidth 5 linecolor rgb accent, \
     $medians using (reach):1:3 with labels left offset 1.5,0 textcolor rgb accent, \
     $medians using (reach):1:5 with labels left offset 6.5,0 textcolor rgb ink font ",17", \
     $medians using (1 / reach):1:4 with labels right offset -1.5,0 textcolor rgb ink, \
     $jobs using (1 / reach):($1 - 0.7):2 with labels right offset -1.5,0 font ",17" textcolor rgb faint
