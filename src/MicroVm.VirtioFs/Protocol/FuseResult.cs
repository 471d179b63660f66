using System.Runtime.CompilerServices;
using MicroVm.Linux;

namespace MicroVm.VirtioFs.Protocol;

/// <summary>What an operation returns: the length of the payload that it has put into the answer, or a negative errno.</summary>
internal static class FuseResult
{
    /// <summary>An error, to be answered with.</summary>
    public static int Fail(Errno errno) => -(int)errno;

    /// <summary>The last system call's error, to be answered with.</summary>
    public static int Failed() => -(int)Check.LastErrno;

    /// <summary>What a system call returned that gives no data: 0, or its error.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static int Result(nint result) => result < 0 ? Failed() : 0;
}
