# SPDX-License-Identifier: GPL-2.0
#
# IOPS of our driver divided by those of the kernel's own, by job and number
# of queues.  vm/report.py sets before: $rounds (row, ratio), $medians (row,
# ratio, label), reach (the largest ratio to show, and the inverse of the
# least), rounds, ink, paper, faint and accent (colours).

set terminal pngcairo size 1000,620 font "DejaVu Sans,19" background rgb paper
set encoding utf8

set title "Ours against the kernel's own driver, 4 KiB" textcolor rgb ink offset 0,-0.3
set xlabel sprintf("IOPS, ours ÷ kernel's own (dots: %d rounds, bar: median)", rounds) textcolor rgb ink
set border 1 linecolor rgb faint
set tics nomirror textcolor rgb ink
unset key

set logscale x
set xrange [1 / reach:reach]
set xtics ("0.25" 0.25, "0.33" 1 / 3.0, "0.5" 0.5, "0.67" 2 / 3.0, "0.8" 0.8, "1" 1, "1.25" 1.25, "1.5" 1.5, "2" 2, "3" 3, "4" 4)
set yrange [4.6:0.4]
set ytics scale 0 ("random read, 1 queue" 1, "random read, 4 queues" 2, "random write, 1 queue" 3, "random write, 4 queues" 4)

set arrow from 1, graph 0 to 1, graph 1 nohead linecolor rgb ink linewidth 1.5
set label "ours slower" at graph 0, graph 1 offset 0.5,-0.8 textcolor rgb faint
set label "ours faster" at graph 1, graph 1 right offset -0.5,-0.8 textcolor rgb faint

plot $rounds using 2:1 with points pointtype 7 pointsize 1.6 linecolor rgb "#90".accent[2:], \
     $medians using 2:1:(0):(0.24) with vectors nohead linewidth 5 linecolor rgb accent, \
     $medians using 2:($1):(0):(-0.24) with vectors nohead linewidth 5 linecolor rgb accent, \
     $medians using 2:($1 - 0.4):3 with labels textcolor rgb ink
