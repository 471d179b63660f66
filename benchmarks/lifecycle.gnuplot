# usage: gnuplot -e "csv='lifecycle.csv'; png='lifecycle.png'" lifecycle.gnuplot
set terminal pngcairo size 760,480 font "sans,11" background "white"
set output png
set datafile separator ","
set grid ytics lc rgb "#dddddd"
set key top right
set yrange [0:*]
set offsets 0.5, 0.5, graph 0.25, 0
set xlabel "run"
set ylabel "ms"
set title "create + start + delete of a container"
plot csv using 1:4 with linespoints pt 7 lc rgb "#1f77b4" title "microvm, without the VM itself", \
     csv using 1:5 with linespoints pt 5 lc rgb "#d62728" title "runc", \
     30 with lines dt 2 lc rgb "#888888" title "goal"
