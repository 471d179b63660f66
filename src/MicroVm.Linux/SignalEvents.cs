using System.Buffers.Binary;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>
/// Turns signals into the count of an eventfd, for an event loop. (A signalfd needs the signals blocked in every thread,
/// and the runtime starts threads of its own before Main; the runtime's own signal handling needs one more thread.)
/// </summary>
/// <remarks>
/// The handler is a few instructions of machine code, <c>write(fd, &amp;one, 8)</c>, so it may interrupt managed code
/// anywhere. It stays installed for the life of the process, and so do its page and the eventfd.
/// </remarks>
[System.Diagnostics.CodeAnalysis.SuppressMessage(
    "Design", "CA1001", Justification = "A signal may run the handler as long as the process lives.")]
public sealed unsafe class SignalEvents
{
    private readonly ExecutableCode _handler;

    /// <summary>Installs the handler for <paramref name="signals"/>.</summary>
    /// <exception cref="LinuxException">The kernel refuses the handler, its page or the eventfd.</exception>
    public SignalEvents(ReadOnlySpan<int> signals)
    {
        Event = new EventFd();
        Span<byte> code =
        [
            0xf3, 0x0f, 0x1e, 0xfa, // endbr64
            0xb8, 1, 0, 0, 0, // mov eax, SYS_write
            0xbf, 0, 0, 0, 0, // mov edi, fd
            0x48, 0x8d, 0x35, 8, 0, 0, 0, // lea rsi, [rip + 8]
            0xba, 8, 0, 0, 0, // mov edx, 8
            0x0f, 0x05, // syscall
            0xc3, // ret
            1, 0, 0, 0, 0, 0, 0, 0,
        ];
        BinaryPrimitives.WriteInt32LittleEndian(code[10..], Event.Fd.Value);
        _handler = new ExecutableCode(code);
        foreach (int signal in signals)
        {
            Libc.sigaction_t action = new() { sa_handler = _handler.EntryPoint, sa_flags = Libc.SA_RESTART };
            Check.Result(Libc.sigaction(signal, &action, null), "sigaction", $"signal {signal}");
        }
    }

    /// <summary>Counts the signals that arrived; never disposed while the handler may run.</summary>
    public EventFd Event { get; }
}
