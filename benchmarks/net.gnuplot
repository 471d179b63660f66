# usage: gnuplot -e "csv='net.csv'; png='net.png'" net.gnuplot
set terminal pngcairo size 1100,700 font "sans,11" background "white"
set output png
set datafile separator ","
set multiplot layout 2,3
set grid ytics lc rgb "#dddddd"
set key top right
set yrange [0:*]
set xlabel "round"
set offsets 0.5, 0.5, graph 0.35, 0
of(name, column) = (strcol(1) eq name ? column : NaN)
do for [m in "tcp-from-guest-gbit tcp-to-guest-gbit udp-from-guest-kpps udp-to-guest-kpps round-trip-us"] {
    set title m
    plot csv using 2:(of(m, $3)) with linespoints pt 7 lc rgb "#1f77b4" title "microvm-vmm", \
         csv using 2:(of(m, $4)) with linespoints pt 5 lc rgb "#d62728" title "QEMU microvm"
}
unset multiplot
