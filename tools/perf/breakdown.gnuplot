# SPDX-License-Identifier: GPL-2.0
#
# Instructions as boxes.  Each device has three rows: the total, the layers of the
# kernel, and their functions.  The width of a box is its number of instructions.
# perf/charts.py sets these variables first: $boxes (x from and to, y from and to,
# layer or -1 for the total, name), widest and height.  host/page.py adds title, foot, and
# the colours ink, paper, faint and accent.

set terminal pngcairo noenhanced size 1600,1300 font "DejaVu Sans,13" background rgb paper
set encoding utf8
set margins screen 0.02, screen 0.985, screen 0.1, screen 0.94
set label 1 title at screen 0.015, 0.97 left font ",24" textcolor rgb ink
set label 2 foot at screen 0.015, 0.02 left font ",13" textcolor rgb faint
unset key
set border 1 linecolor rgb faint
set tics nomirror textcolor rgb ink
unset ytics
set xlabel "kernel instructions per I/O" textcolor rgb ink
set xrange [0:widest * 1.01]
set yrange [-0.2:height]
set palette defined (-1 faint, 0 accent, 1 "#5b9e6f", 2 "#d9843b", \
	3 "#a98bc4", 4 "#b9b3a6")
set cbrange [-1:4]
unset colorbox
set style fill solid 0.85 border rgb paper
# A name is horizontal if its box is wide enough, else vertical.  line and letter are
# the width of a line of vertical text and of a letter, on the x axis.
line = widest * 0.0105
letter = widest * 0.006
across(s, w) = strlen(s) * letter < w
# The name of a layer that is too long for its box is its first word.
cut(s, most) = strlen(s) <= most ? s : most < 12 ? word(s, 1) : s[1:most]
upwards(s, w, h) = !across(s, w) && w > line ? cut(s, int(h * 6.5)) : ""

plot $boxes using 1:3:1:2:3:4:5 with boxxyerror linecolor palette, \
     $boxes using (($1 + $2) / 2):(($3 + $4) / 2):(across(strcol(6), $2 - $1) ? \
	strcol(6) : "") with labels font ",11" textcolor rgb ink, \
     $boxes using (($1 + $2) / 2):(($3 + $4) / 2):(upwards(strcol(6), $2 - $1, \
	$4 - $3)) with labels rotate font ",9" textcolor rgb ink
