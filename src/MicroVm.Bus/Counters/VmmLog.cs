using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Bus.Counters;

/// <summary>
/// The VMM's messages: one line each on standard error, written with one write(2) and without the Console class, whose
/// encodings and locks cost a start several milliseconds. Any thread.
/// </summary>
public static class VmmLog
{
    private const int MaxBytes = 2048;

    /// <summary>Writes <c>microvm-vmm: </c> and <paramref name="message"/> as one line; what cannot be written is dropped.</summary>
    // Safe: the encoder writes at most MaxBytes, and the newline has the byte behind them; the buffer lives for the call.
    public static unsafe void Write(string message)
    {
        ArgumentNullException.ThrowIfNull(message);
        string line = string.Concat("microvm-vmm: ", message.ReplaceLineEndings(" "));
        byte* buffer = stackalloc byte[MaxBytes + 1];
        Encoding.UTF8.GetEncoder().Convert(line, new Span<byte>(buffer, MaxBytes), flush: true, out _, out int n, out _);
        buffer[n] = (byte)'\n';
        _ = Libc.write(2, buffer, (nuint)n + 1);
    }
}
