using System.Runtime.CompilerServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Kvm;

/// <summary>The one place where a KVM ioctl is made and its result becomes a value or an exception. Allocates only to throw.</summary>
internal static unsafe class KvmIoctl
{
    /// <summary>Makes the call with a number as argument; throws for any error.</summary>
    public static int Call(SafeFd fd, uint request, nint argument = 0, [CallerArgumentExpression(nameof(request))] string name = "") =>
        Call(fd, request, (void*)argument, name);

    /// <summary>Makes the call with a structure as argument; throws for any error.</summary>
    public static int Call<T>(SafeFd fd, uint request, ref T argument, [CallerArgumentExpression(nameof(request))] string name = "")
        where T : unmanaged
    {
        fixed (T* p = &argument)
        {
            return Call(fd, request, (void*)p, name);
        }
    }

    /// <summary>Makes the call with a pointer as argument; throws for any error.</summary>
    public static int Call(SafeFd fd, uint request, void* argument, [CallerArgumentExpression(nameof(request))] string name = "")
    {
        int result = TryCall(fd, request, argument);
        if (result < 0)
        {
            Check.Throw(name);
        }

        return result;
    }

    /// <summary>Makes the call; -1 and <see cref="Check.LastErrno"/> for an error.</summary>
    public static int TryCall(SafeFd fd, uint request, void* argument)
    {
        int result;
        do
        {
            result = Libc.ioctl(fd.Value, request, argument);
        }
        while (Check.Retry(result));
        return result;
    }
}
