using System.Diagnostics;
using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd.Support;

/// <summary>
/// A thread of another process as an attacker has it who took it over: it makes the system calls of the test's choice, with its own rights
/// and filters. By ptrace(2), so one thread of the test makes, uses and disposes it. Disposed, the thread goes on as if nothing had been.
/// The process must not be a <see cref="Process"/> of this one: .NET would wait for its stops.
/// </summary>
internal sealed unsafe class TakenOverThread : IDisposable
{
    // asm/unistd_64.h, sys/ptrace.h, bits/waitstatus.h.
    private const nint SYS_ptrace = 101;
    private const nint PTRACE_SINGLESTEP = 9, PTRACE_GETREGS = 12, PTRACE_SETREGS = 13, PTRACE_DETACH = 17, PTRACE_SEIZE = 0x4206, PTRACE_INTERRUPT = 0x4207;
    private const int Stopped = 0x7f, SIGTRAP = 5;

    // The kernel's own errors of a call that a signal interrupted and that starts anew (linux/errno.h).
    private const long ERESTARTSYS = -512, ERESTARTNOHAND = -514, ERESTART_RESTARTBLOCK = -516;
    private const ulong SYS_restart_syscall = 219;

    // struct user_regs_struct (sys/user.h): 27 registers; the places of those that calls use.
    private const int Registers = 27, R10 = 7, R9 = 8, R8 = 9, Rax = 10, Rdx = 12, Rsi = 13, Rdi = 14, OrigRax = 15, Rip = 16, Rsp = 19;
    private static readonly int[] Arguments = [Rdi, Rsi, Rdx, R10, R8, R9];

    // Far below what the thread has on its stack.
    private const ulong Below = 16 << 10;
    private readonly int _process;
    private readonly int _thread;
    private readonly ulong[] _saved = new ulong[Registers];
    private readonly FileStream _memory;
    private readonly ulong _instruction;
    private int _signal;
    private bool _ended;

    private TakenOverThread(int process, int thread)
    {
        _process = process;
        _thread = thread;
        nint result = Ptrace(PTRACE_SEIZE, 0);
        Skip.If(result < 0 && Check.LastErrno is Errno.EPERM, "this process may not trace others: a VMM that was taken over was NOT tried");
        Check.Result(result, "ptrace(PTRACE_SEIZE)");
        Check.Result(Ptrace(PTRACE_INTERRUPT, 0), "ptrace(PTRACE_INTERRUPT)");
        Assert.True(WaitForStop(out _), "the thread ended before it was taken over");
        GetRegisters(_saved);
        Restartable(_saved);
        _memory = new FileStream($"/proc/{process}/mem", FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0);
        _instruction = FindInstruction();
    }

    /// <summary>Takes over the thread of a name.</summary>
    /// <param name="process">Its process.</param>
    /// <param name="name">What /proc/PID/task/TID/comm begins with.</param>
    public static TakenOverThread Take(int process, string name) => new(process, Find(process, name));

    /// <summary>Waits until the VMM's thread of that name has the filter of its kind on top of that of the process.</summary>
    public static void WaitUntilFiltered(int process, string name)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!Directory.GetDirectories($"/proc/{process}/task").Any(t => IsFiltered(t, name)))
        {
            Assert.True(watch.Elapsed < Installation.RunDeadline, $"no thread {name} with a filter of its own");
            Thread.Sleep(2);
        }
    }

    /// <summary>Makes the thread call the kernel.</summary>
    /// <param name="number">Of the system call (asm/unistd_64.h).</param>
    /// <param name="arguments">Up to six.</param>
    /// <returns>What the kernel answers, an error as a negative number; null when the process was ended for it.</returns>
    public long? Call(long number, params ReadOnlySpan<long> arguments)
    {
        ulong[] registers = [.. _saved];
        registers[Rax] = (ulong)number;
        registers[Rip] = _instruction;
        registers[OrigRax] = ulong.MaxValue;
        for (int i = 0; i < arguments.Length; i++)
        {
            registers[Arguments[i]] = (ulong)arguments[i];
        }

        SetRegisters(registers);
        while (true)
        {
            Check.Result(Ptrace(PTRACE_SINGLESTEP, 0), "ptrace(PTRACE_SINGLESTEP)");
            if (!WaitForStop(out int signal))
            {
                _ended = true;
                return null;
            }

            if (signal == SIGTRAP)
            {
                break;
            }

            // Meant for what the thread was at.
            _signal = signal;
        }

        GetRegisters(registers);
        return (long)registers[Rax];
    }

    /// <summary>Puts a text, with a NUL behind it, where the thread can read it; its address. The next text takes its place.</summary>
    public long Text(string text, int place = 0)
    {
        ulong address = ((_saved[Rsp] - Below) & ~0xFFFul) + (ulong)(place * 1024);
        byte[] bytes = Encoding.UTF8.GetBytes(text + "\0");
        RandomAccess.Write(_memory.SafeFileHandle, bytes, (long)address);
        return (long)address;
    }

    public void Dispose()
    {
        if (!_ended)
        {
            SetRegisters(_saved);
            _ = Ptrace(PTRACE_DETACH, _signal);
        }

        _memory.Dispose();
    }

    private static int Find(int process, string name) => int.Parse(
        Path.GetFileName(Directory.GetDirectories($"/proc/{process}/task").Order(StringComparer.Ordinal).First(t => Name(t).StartsWith(name, StringComparison.Ordinal))),
        CultureInfo.InvariantCulture);

    private static bool IsFiltered(string task, string name)
    {
        try
        {
            return Name(task).StartsWith(name, StringComparison.Ordinal) && File.ReadLines($"{task}/status").Contains("Seccomp_filters:\t2");
        }
        catch (IOException)
        {
            return false;
        }
    }

    private static string Name(string task) => File.ReadAllText($"{task}/comm").Trim();

    // As the kernel does before a thread goes back to where a signal met it (signal(7), "Interruption of system calls").
    private static void Restartable(ulong[] registers)
    {
        long result = (long)registers[Rax];
        if ((long)registers[OrigRax] >= 0 && result is (<= ERESTARTSYS and >= ERESTARTNOHAND) or ERESTART_RESTARTBLOCK)
        {
            registers[Rax] = result == ERESTART_RESTARTBLOCK ? SYS_restart_syscall : registers[OrigRax];
            registers[Rip] -= 2;
        }

        registers[OrigRax] = ulong.MaxValue;
    }

    // The thread was met in a call of its own, or the program has one elsewhere.
    private ulong FindInstruction()
    {
        string range = File.ReadLines($"/proc/{_process}/maps").First(l => l.Contains(" r-xp ", StringComparison.Ordinal)).Split(' ')[0];
        ulong[] ends = [.. range.Split('-').Select(t => ulong.Parse(t, NumberStyles.HexNumber, CultureInfo.InvariantCulture))];
        byte[] code = new byte[ends[1] - ends[0]];
        int length = RandomAccess.Read(_memory.SafeFileHandle, code, (long)ends[0]);
        int at = code.AsSpan(0, length).IndexOf((ReadOnlySpan<byte>)[0x0f, 0x05]);
        Assert.True(at >= 0, "the program has no syscall instruction");
        return ends[0] + (ulong)at;
    }

    private void GetRegisters(ulong[] registers)
    {
        fixed (ulong* p = registers)
        {
            Check.Result(Ptrace(PTRACE_GETREGS, (nint)p), "ptrace(PTRACE_GETREGS)");
        }
    }

    private void SetRegisters(ulong[] registers)
    {
        fixed (ulong* p = registers)
        {
            Check.Result(Ptrace(PTRACE_SETREGS, (nint)p), "ptrace(PTRACE_SETREGS)");
        }
    }

    private nint Ptrace(nint request, nint data) => Libc.syscall(SYS_ptrace, request, _thread, 0, data, 0, 0);

    /// <summary>Waits for the thread's next stop, and by which signal; false: it has ended.</summary>
    private bool WaitForStop(out int signal)
    {
        int status, result;
        do
        {
            result = Libc.waitpid(_thread, &status, Libc.__WALL);
        }
        while (Check.Retry(result));
        Check.Result(result, "waitpid");
        signal = (status >> 8) & 0xff;
        return (status & 0xff) == Stopped;
    }
}
