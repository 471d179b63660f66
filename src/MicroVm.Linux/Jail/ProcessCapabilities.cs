using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Jail;

/// <summary>
/// Takes capabilities from every thread of this process. capset(2) changes the calling thread alone, so each thread is made to call it by a
/// signal, as libcap's psx does it and glibc for setuid(2).
/// </summary>
public static unsafe class ProcessCapabilities
{
    // SIGRTMIN + 7 of glibc; its former action is put back.
    private const int SignalNumber = 41;
    private const int MaxStatus = 16 << 10;
    private const int HeaderOffset = 0x20, DataOffset = 0x28;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    private static ExecutableCode? s_handler;

    // endbr64; mov eax, 126 (capset); lea rdi, [rip+0x10]; lea rsi, [rip+0x11]; syscall; ret; then, from 0x20 on, the call's header
    // (version 3, this thread) and from 0x28 on its data. Managed code must not run in a signal handler.
    private static ReadOnlySpan<byte> Handler =>
    [
        0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 0x7e, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x3d, 0x10, 0x00, 0x00, 0x00,
        0x48, 0x8d, 0x35, 0x11, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    ];

    /// <summary>
    /// Leaves every thread, and those that they start later, the capabilities of <paramref name="kept"/> that it has, as effective and
    /// permitted ones, and none to inherit.
    /// </summary>
    /// <exception cref="LinuxException">The kernel refuses, or a thread does not take the signal (ETIMEDOUT).</exception>
    public static void Keep(params ReadOnlySpan<int> kept)
    {
        ulong set = 0;
        foreach (int capability in kept)
        {
            set |= 1UL << capability;
        }

        set &= Own();
        Span<byte> code = stackalloc byte[DataOffset + sizeof(Libc.__user_cap_data_struct) * 2];
        Handler.CopyTo(code);
        BinaryPrimitives.WriteUInt32LittleEndian(code[HeaderOffset..], Libc._LINUX_CAPABILITY_VERSION_3);
        BinaryPrimitives.WriteUInt32LittleEndian(code[(HeaderOffset + 4)..], 0);
        for (int half = 0; half < 2; half++)
        {
            Span<byte> data = code[(DataOffset + (half * sizeof(Libc.__user_cap_data_struct)))..];
            BinaryPrimitives.WriteUInt32LittleEndian(data, (uint)(set >> (32 * half)));
            BinaryPrimitives.WriteUInt32LittleEndian(data[4..], (uint)(set >> (32 * half)));
            BinaryPrimitives.WriteUInt32LittleEndian(data[8..], 0);
        }

        // Never freed: a thread may still be on its way out of it.
        s_handler = new ExecutableCode(code);
        Libc.sigaction_t action = new() { sa_handler = s_handler.EntryPoint, sa_flags = Libc.SA_RESTART }, before;
        Check.Result(Libc.sigaction(SignalNumber, &action, &before), "sigaction", "capset in every thread");
        try
        {
            SignalUntilAllHave(set);
        }
        finally
        {
            _ = Libc.sigaction(SignalNumber, &before, null);
        }
    }

    /// <summary>A thread may be started by one that has not had its signal yet: all are looked at until none differs.</summary>
    private static void SignalUntilAllHave(ulong set)
    {
        long deadline = Environment.TickCount64 + (long)Patience.TotalMilliseconds;
        HashSet<int> signalled = [];
        while (true)
        {
            bool all = true;
            foreach (string folder in Directory.EnumerateDirectories("/proc/self/task"))
            {
                if (!int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out int thread) || Permitted(thread) is not { } now || now == set)
                {
                    continue;
                }

                all = false;
                if (signalled.Add(thread))
                {
                    _ = Libc.tgkill(Libc.getpid(), thread, SignalNumber);
                }
            }

            if (all)
            {
                return;
            }

            if (Environment.TickCount64 > deadline)
            {
                throw new LinuxException(Errno.ETIMEDOUT, "capset", "every thread");
            }

            Thread.Yield();
        }
    }

    private static ulong Own() => Permitted(ThreadKick.CurrentThreadId) ?? throw new LinuxException(Errno.ENOENT, "read", "/proc/self/task/TID/status");

    /// <summary>The permitted set of a thread; null when it has ended.</summary>
    private static ulong? Permitted(int thread)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/task/{thread}/status");
        if (HostFile.TryReadAllBytes(path, MaxStatus, out _) is not { } status)
        {
            return null;
        }

        ReadOnlySpan<byte> rest = status.AsSpan(status.AsSpan().IndexOf("CapPrm:"u8) + 7).TrimStart("\t "u8);
        return ulong.Parse(Encoding.ASCII.GetString(rest[..16]), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
    }
}
