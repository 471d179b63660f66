using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.Runtime;

/// <summary>A process of a container whose command stays in the foreground.</summary>
internal static class ForegroundProcess
{
    /// <summary>Exit status of a process that a signal ended: this and the signal, as shells have it.</summary>
    internal const int SignalBase = 128;

    /// <summary>Hands the caller's signals on to the process on the host.</summary>
    internal static void HandOn(ProxyClient process, SignalRelay signals, Terminal? terminal) => signals.Start(signal =>
    {
        if (signal == Libc.SIGCONT)
        {
            terminal?.MakeRaw();
        }

        process.Process.Signal(signal);
    });

    /// <summary>Waits for the end.</summary>
    /// <returns>The exit status as shells have it.</returns>
    internal static int Await(ProxyClient process)
    {
        (ExitStatus exit, string? failure) = process.WaitForEnd();
        return failure is not null ? throw new SandboxException(failure)
            : exit.Signal != 0 ? SignalBase + exit.Signal
            : exit.Status;
    }

    /// <summary>The caller's terminal, raw until it is disposed of.</summary>
    internal static Terminal RawTerminal() => new(CallerTerminal.Find() ?? throw CallerTerminal.Missing);
}
