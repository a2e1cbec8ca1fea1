# SPDX-License-Identifier: GPL-2.0
#
# Kernel instructions per I/O, a group of bars for each job.  perf/charts.py sets
# these variables first: $bars (job, a column for each device), titles (array of the
# devices' titles), count (number of devices), and the colours ink, paper, faint and
# accent.

set terminal pngcairo noenhanced size 1000,560 font "DejaVu Sans,15" background rgb paper
set encoding utf8
set border 3 linecolor rgb faint
set tics nomirror textcolor rgb ink
set key top right horizontal textcolor rgb ink
set ylabel "kernel instructions per I/O" textcolor rgb ink
set grid y linecolor rgb faint linewidth 0.3
set yrange [0:*]
set xtics rotate by -20 font ",12"
set rmargin 6
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 border rgb paper
array shade[5] = ["#9aa1ac", "#d9843b", "#5b9e6f", "#a98bc4", accent]

# Our driver is the last device and has the accent colour.
colour(n) = n == count ? accent : shade[n]

plot for [n = 1:count] $bars using (column(n + 1)):xtic(1) \
	title titles[n] linecolor rgb colour(n)
