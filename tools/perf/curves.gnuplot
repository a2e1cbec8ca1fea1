# SPDX-License-Identifier: GPL-2.0
#
# Small multiples: a row for each figure, a column for each device, and lines over depths
# or jobs with the range of their rounds.  perf/curves.py sets these variables first:
#
#   rows, cols, lines  the numbers of panels and of lines in a panel
#   $data              a block for each line of each panel, by row, then column: x, low,
#                      median, high.  The last block of a panel is the reference.
#   heads[]            the columns' titles
#   labels[], logs[], floors[], tops[]
#                      of each row: the label of its y axis, whether it is logarithmic,
#                      and its range
#   names[], shades[]  of each row and line: its name, "" for no line, and its colour
#   references[]       of each row: the name of the reference, "" for none
#   xlabel             of all panels; width, height of the picture in pixels
#   level              a horizontal line in all panels, 0 for none
#
# and sets xtics and xrange.  host/page.py adds title, foot, and the colours ink, paper,
# faint and accent.

set terminal pngcairo noenhanced size width,height font "DejaVu Sans,14" background rgb paper
set encoding utf8
set border 3 linecolor rgb faint
set tics nomirror textcolor rgb ink
set grid y linecolor rgb faint linewidth 0.3
unset key
set logscale x 2
set datafile missing "NaN"

# Distances of the panels from the picture's edges, and between rows, in pixels.
left = 165; right = 200; above = 115; below = 115; gap = 45
set multiplot layout rows,cols margins screen 1.0 * left / width, 1 - 1.0 * right / width, \
	1.0 * below / height, 1 - 1.0 * above / height spacing screen 0.02, 1.0 * gap / height

set label 1 title at screen 0.015, 1 - 34.0 / height left font ",22" textcolor rgb ink
set label 2 foot at screen 0.015, 24.0 / height left font ",13" textcolor rgb faint

# Whether a range of ratios has 1 in it: its median is drawn hollow.
wide(low, high) = level > 0 && low <= level && high >= level

# The pixels from the top of a row of panels to that of the next, and the place of a text
# beside a row.
tall = 1.0 * (height - above - below - (rows - 1) * gap) / rows + gap
beside(row, line) = 1 - (above + (row - 1) * tall + line * 24 - 10) / height
across = 1 - (right - 16.0) / width

do for [row = 1:rows] {
	# The names of the lines are beside the row, so that they cover no line.
	do for [k = 1:lines] {
		set label 10 + k names[(row - 1) * lines + k] at screen across, \
			beside(row, k) left textcolor rgb shades[(row - 1) * lines + k]
	}
	set label 20 references[row] at screen across, beside(row, lines + 1) left \
		textcolor rgb faint font ",12"
	# The y axis' label, in the same place whatever the width of the numbers.
	set label 30 labels[row] at screen 40.0 / width, \
		1 - (above + (row - 1) * tall + (tall - gap) / 2) / height \
		center rotate by 90 textcolor rgb ink
	if (logs[row]) { set logscale y } else { unset logscale y }
	set yrange [floors[row]:tops[row]]
	if (level > 0 && tops[row] > 3) {
		set ytics (1 / 256.0, 1 / 64.0, 1 / 16.0, 1 / 4.0, 1, 4, 16, 64, 256)
	}
	if (level > 0 && tops[row] <= 3) {
		set ytics (0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3)
	}
	do for [col = 1:cols] {
		if (row == 1) { set title heads[col] textcolor rgb ink font ",17" } \
			else { unset title }
		if (col == 1) { set format y "%g" } else { set format y "" }
		if (row == rows) { set xlabel xlabel textcolor rgb ink; set format x "%g" } \
			else { unset xlabel; set format x "" }
		base = ((row - 1) * cols + col - 1) * (lines + 1)
		plot for [k = 1:lines] $data index base + k - 1 using 1:2:4 \
				with filledcurves fillcolor rgb "#d0".shades[(row - 1) * lines + k][2:], \
			$data index base + lines using 1:3 with lines dashtype 2 linewidth 2 \
				linecolor rgb faint, \
			level with lines linecolor rgb faint linewidth (level > 0), \
			for [k = 1:lines] $data index base + k - 1 using 1:3 with lines \
				linewidth 3 linecolor rgb shades[(row - 1) * lines + k], \
			for [k = 1:lines] $data index base + k - 1 using 1:3 with points \
				pointtype 7 pointsize 1.3 \
				linecolor rgb shades[(row - 1) * lines + k], \
			for [k = 1:lines] $data index base + k - 1 \
				using 1:(wide($2, $4) ? $3 : NaN) with points pointtype 7 \
				pointsize 0.8 linecolor rgb paper
		unset label
	}
}
unset multiplot
