using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Cli;

/// <summary>Standard output and error, unbuffered and without the console's own machinery.</summary>
internal static class Output
{
    internal static void Write(string text) => Write(1, text);

    internal static void WriteError(string text) => Write(2, text);

    private static void Write(int number, string text)
    {
        using SafeFd fd = new(number);
        try
        {
            HostFile.WriteAll(fd, Encoding.UTF8.GetBytes(text), "output");
        }
        catch (LinuxException e) when (e.Errno is Errno.EPIPE or Errno.EBADF)
        {
            // Nobody reads.
        }
        finally
        {
            fd.SetHandleAsInvalid();
        }
    }
}
