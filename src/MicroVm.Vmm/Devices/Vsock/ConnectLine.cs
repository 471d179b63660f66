using System.Buffers.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>The lines of the hybrid socket: <c>CONNECT port</c> from a host client, <c>OK hostport</c> to it.</summary>
internal static class ConnectLine
{
    /// <summary>Longest answer, newline included.</summary>
    public const int MaxAnswer = 16;

    /// <summary>Parses <c>CONNECT port</c>; the port any but VMADDR_PORT_ANY.</summary>
    public static bool TryParse(ReadOnlySpan<byte> line, out uint port)
    {
        ReadOnlySpan<byte> verb = "CONNECT "u8;
        port = 0;
        return line.StartsWith(verb)
            && line.Length > verb.Length
            && char.IsAsciiDigit((char)line[verb.Length])
            && Utf8Parser.TryParse(line[verb.Length..], out port, out int used)
            && used == line.Length - verb.Length
            && port != Libc.VMADDR_PORT_ANY;
    }

    /// <summary>Writes <c>OK port</c> with its newline.</summary>
    /// <returns>Its length.</returns>
    public static int Answer(uint port, Span<byte> answer)
    {
        "OK "u8.CopyTo(answer);
        _ = Utf8Formatter.TryFormat(port, answer[3..], out int digits);
        answer[3 + digits] = (byte)'\n';
        return digits + 4;
    }
}
