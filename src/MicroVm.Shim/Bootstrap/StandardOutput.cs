using System.Text;
using MicroVm.Linux;

namespace MicroVm.Shim.Bootstrap;

/// <summary>Standard streams, written without a buffer: containerd reads both of them, and takes every byte for the answer.</summary>
internal static class StandardOutput
{
    private const int Output = 1, Error = 2, Input = 0;
    private const int MaxInput = 4 << 20;

    /// <summary>Writes the answer.</summary>
    /// <exception cref="LinuxException">The reader is gone.</exception>
    internal static void Write(ReadOnlySpan<byte> bytes)
    {
        // Not disposed: the numbers are the process's.
        SafeFd fd = new(Output);
        try
        {
            HostFile.WriteAll(fd, bytes, "standard output");
        }
        finally
        {
            fd.SetHandleAsInvalid();
        }
    }

    /// <summary>Writes a line about a failure; a reader that is gone is no further failure.</summary>
    internal static void WriteError(string text)
    {
        SafeFd fd = new(Error);
        _ = Pipe.TryWrite(fd, Encoding.UTF8.GetBytes(text));
        fd.SetHandleAsInvalid();
    }

    /// <summary>All of standard input; empty when it is closed.</summary>
    internal static byte[] ReadInput()
    {
        SafeFd fd = new(Input);
        try
        {
            return HostFile.ReadToEnd(fd, MaxInput, "standard input");
        }
        catch (LinuxException e) when (e.Errno == Errno.EBADF)
        {
            return [];
        }
        finally
        {
            fd.SetHandleAsInvalid();
        }
    }
}
