# usage: gnuplot -e "csv='start.csv'; svg='start.svg'" start.gnuplot
set terminal svg size 900,420 font "sans,12" background "white"
set output svg
set datafile separator ","
set multiplot layout 1,2
set style fill solid 0.6
set key top left
set yrange [0:*]
set xlabel "run"
set title "exec to first KVM\\_RUN"
set ylabel "ms"
plot csv using (strcol(1) eq "exec to first KVM_RUN" ? $3 : NaN):4 with linespoints pt 7 title "microvm-vmm", \
     csv using (strcol(1) eq "exec to first KVM_RUN" ? $3 : NaN):5 with linespoints pt 5 title "QEMU microvm"
set title "first KVM\\_RUN to agent ready"
set ylabel "s"
plot csv using (strcol(1) eq "first KVM_RUN to agent ready" ? $3 : NaN):4 with linespoints pt 7 title "microvm-vmm", \
     csv using (strcol(1) eq "first KVM_RUN to agent ready" ? $3 : NaN):5 with linespoints pt 5 title "QEMU microvm"
unset multiplot
