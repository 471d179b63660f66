# usage: gnuplot -e "csv='templates.csv'; png='templates.png'" templates.gnuplot
set terminal pngcairo size 760,480 font "sans,11" background "white"
set output png
set datafile separator ","
set grid ytics lc rgb "#dddddd"
set key top right
set yrange [0:*]
set offsets 0.5, 0.5, graph 0.25, 0
set xlabel "run"
set ylabel "ms"
set title "run of a container, start to end"
plot csv using 1:2 with linespoints pt 7 lc rgb "#1f77b4" title "microvm, booted", \
     csv using 1:3 with linespoints pt 9 lc rgb "#2ca02c" title "microvm, from a template", \
     csv using 1:4 with linespoints pt 11 lc rgb "#9467bd" title "microvm, from a template, page by page", \
     csv using 1:5 with linespoints pt 5 lc rgb "#d62728" title "runc"
