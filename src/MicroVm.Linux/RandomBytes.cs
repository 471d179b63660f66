using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Random bytes that nobody can guess, from getrandom(2): the library's own generator is OpenSSL's (<see cref="Sha256"/>).</summary>
public static unsafe class RandomBytes
{
    /// <summary><paramref name="count"/> bytes.</summary>
    /// <exception cref="LinuxException">The kernel has none.</exception>
    public static byte[] Get(int count)
    {
        byte[] bytes = new byte[count];
        int done = 0;
        fixed (byte* p = bytes)
        {
            while (done < count)
            {
                nint n = Libc.getrandom(p + done, (nuint)(count - done), 0);
                if (!Check.Retry(n))
                {
                    done += (int)Check.Result(n, "getrandom");
                }
            }
        }

        return bytes;
    }
}
