using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace MicroVm.Linux;

/// <summary>A system call failed: which operation, on which object, with which error number.</summary>
public sealed class LinuxException : IOException
{
    /// <summary>Creates the exception for <paramref name="operation"/> on <paramref name="target"/>.</summary>
    public LinuxException(Errno errno, string operation, string? target = null)
        : base(Describe(errno, operation, target))
    {
        Errno = errno;
        Operation = operation;
        HResult = (int)errno;
    }

    /// <summary>The error number that the kernel gave.</summary>
    public Errno Errno { get; }

    /// <summary>The operation that failed, for example <c>openat2</c>.</summary>
    public string Operation { get; }

    /// <summary>Why, in Go's words: "no such file or directory".</summary>
    public string Reason => Text(Errno).ToLowerInvariant();

    /// <summary>libc's text for an error number, as C programs print it.</summary>
    public static string Text(Errno errno) => Marshal.GetPInvokeErrorMessage((int)errno);

    private static string Describe(Errno errno, string operation, string? target)
    {
        string text = $"{Text(errno)} ({errno})";
        return target is null ? $"{operation}: {text}" : $"{operation} {target}: {text}";
    }
}

/// <summary>
/// The one path from a libc result to an exception. EINTR policy: calls made through this library are restarted by
/// their wrappers (<see cref="Retry"/>), except those documented as interruptible.
/// </summary>
public static class Check
{
    /// <summary>Passes <paramref name="result"/> through when it is not negative, else throws with errno.</summary>
    /// <exception cref="LinuxException">The call failed.</exception>
    public static int Result(int result, string operation, string? target = null)
    {
        if (result < 0)
        {
            Throw(operation, target);
        }

        return result;
    }

    /// <inheritdoc cref="Result(int, string, string?)"/>
    public static nint Result(nint result, string operation, string? target = null)
    {
        if (result < 0)
        {
            Throw(operation, target);
        }

        return result;
    }

    /// <summary>The errno of the last call made through <c>LibraryImport(SetLastError = true)</c> on this thread.</summary>
    public static Errno LastErrno => (Errno)Marshal.GetLastPInvokeError();

    /// <summary>True when <paramref name="result"/> says that the call was interrupted and must be made again.</summary>
    public static bool Retry(nint result) => result < 0 && LastErrno == Errno.EINTR;

    /// <summary>Throws for the last error of this thread.</summary>
    [DoesNotReturn]
    public static void Throw(string operation, string? target = null) =>
        throw new LinuxException(LastErrno, operation, target);
}
