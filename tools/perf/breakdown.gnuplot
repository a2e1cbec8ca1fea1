# SPDX-License-Identifier: GPL-2.0
#
# Instructions as boxes: of each device the whole, below it the layers of the
# kernel, below them their functions, each as wide as what it takes.
# perf/charts.py sets before: $boxes (x from and to, y from and to, layer, -1 for
# the whole, name), widest, height, ink, paper, faint, accent (colours).

set terminal pngcairo noenhanced size 1000,1200 font "DejaVu Sans,13" background rgb paper
set encoding utf8
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
# A name goes across its box if that is wide enough, else upwards, in a font of
# which a line takes so much of the width, and a letter so much of the height.
line = widest * 0.0115
letter = widest * 0.0085
across(s, w) = strlen(s) * letter < w
upwards(s, w, h) = !across(s, w) && w > line ? s[1:int(h * 6.5)] : ""

plot $boxes using 1:3:1:2:3:4:5 with boxxyerror linecolor palette, \
     $boxes using (($1 + $2) / 2):(($3 + $4) / 2):(across(strcol(6), $2 - $1) ? \
	strcol(6) : "") with labels font ",11" textcolor rgb ink, \
     $boxes using (($1 + $2) / 2):(($3 + $4) / 2):(upwards(strcol(6), $2 - $1, \
	$4 - $3)) with labels rotate font ",9" textcolor rgb ink
