using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Cli;

/// <summary>Standard output and error, unbuffered and without the console's own machinery.</summary>
internal static class Output
{
    /// <summary>Writes to standard output; false when nobody reads it.</summary>
    internal static bool Write(string text) => Write(1, text);

    /// <summary>Writes to standard error.</summary>
    internal static void WriteError(string text) => _ = Write(2, text);

    private static bool Write(int number, string text)
    {
        using SafeFd fd = new(number);
        try
        {
            HostFile.WriteAll(fd, Encoding.UTF8.GetBytes(text), "output");
            return true;
        }
        catch (LinuxException e) when (e.Errno is Errno.EPIPE or Errno.EBADF)
        {
            return false;
        }
        finally
        {
            fd.SetHandleAsInvalid();
        }
    }
}
