# usage: gnuplot -e "csv='start.csv'; png='start.png'" start.gnuplot
set terminal pngcairo size 1100,480 font "sans,11" background "white"
set output png
set datafile separator ","
set multiplot layout 1,2
set grid ytics lc rgb "#dddddd"
set key top right
set yrange [0:*]
set xlabel "run"
set offsets 0.5, 0.5, graph 0.25, 0
set title "exec to first KVM\\_RUN"
set ylabel "ms"
plot csv using (strcol(1) eq "exec to first KVM_RUN" ? $3 : NaN):4 with linespoints pt 7 lc rgb "#1f77b4" title "microvm-vmm", \
     csv using (strcol(1) eq "exec to first KVM_RUN" ? $3 : NaN):5 with linespoints pt 5 lc rgb "#d62728" title "QEMU microvm"
set title "first KVM\\_RUN to agent ready"
set ylabel "s"
plot csv using (strcol(1) eq "first KVM_RUN to agent ready" ? $3 : NaN):4 with linespoints pt 7 lc rgb "#1f77b4" title "microvm-vmm", \
     csv using (strcol(1) eq "first KVM_RUN to agent ready" ? $3 : NaN):5 with linespoints pt 5 lc rgb "#d62728" title "QEMU microvm"
unset multiplot
