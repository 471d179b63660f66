using System.Globalization;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>The guest as a machine: what it has, clock, entropy, hot-plugged processors and memory, power.</summary>
internal sealed class GuestControl(AgentState agent, Action powerOff)
{
    private const int ShutdownMilliseconds = 5000;

    internal void ReadDetails(TtrpcCall call)
    {
        GuestDetails details = new()
        {
            AgentVersion = typeof(AgentService).Assembly.GetName().Version?.ToString(3) ?? "",
            KernelRelease = (SmallFile.TryRead(agent.Setup.Proc, "sys/kernel/osrelease") ?? "").Trim(),
            MemoryBytes = MemoryTotal(SmallFile.TryRead(agent.Setup.Proc, "meminfo") ?? ""),
            Cpus = (uint)Environment.ProcessorCount,
            Seccomp = SmallFile.TryRead(agent.Setup.Proc, "sys/kernel/seccomp/actions_avail") is not null,
        };
        details.CgroupControllers.AddRange(agent.Cgroups.Controllers());
        foreach (string line in (SmallFile.TryRead(agent.Setup.Proc, "filesystems") ?? "").Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            details.Filesystems.Add(line[(line.IndexOf('\t', StringComparison.Ordinal) + 1)..]);
        }

        call.Complete(details);
    }

    internal static unsafe void SetDateTime(SetGuestDateTimeRequest request, TtrpcCall call)
    {
        Libc.timespec time = new() { tv_sec = request.Seconds, tv_nsec = request.Nanoseconds };
        Check.Result(Libc.clock_settime(Libc.CLOCK_REALTIME, &time), "clock_settime");
        call.Complete(new Empty());
    }

    internal static unsafe void Reseed(ReseedRandomDevRequest request, TtrpcCall call)
    {
        const int longest = 4096;
        int length = Math.Min(request.Data.Length, longest);
        if (length == 0)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, "no entropy was given");
        }

        DropDeviceNumbers();
        using SafeFd random = Boot.GuestDeviceNodes.Open("/dev/urandom", 1, 9, Libc.O_RDWR);
        // struct rand_pool_info: entropy in bits, size in bytes, bytes.
        int* info = stackalloc int[2 + (longest / sizeof(int))];
        info[0] = length * 8;
        info[1] = length;
        request.Data.Span[..length].CopyTo(new Span<byte>(info + 2, longest));
        Check.Result(Libc.ioctl(random.Value, Libc.RNDADDENTROPY, info), "ioctl(RNDADDENTROPY)");
        // A clone of a snapshot must not hand out the numbers that its siblings do (RNDRESEEDCRNG, _IO('R', 7)).
        Check.Result(Libc.ioctl(random.Value, Libc.RNDRESEEDCRNG, (nint)0), "ioctl(RNDRESEEDCRNG)");
        call.Complete(new Empty());
    }

    /// <summary>
    /// Reads what the random generator's device gave before the VM was saved: siblings have the same bytes in the buffers of /dev/hwrng (64 in
    /// the driver, 64 above it).
    /// </summary>
    private static unsafe void DropDeviceNumbers()
    {
        const int most = 256;
        byte* dropped = stackalloc byte[most];
        try
        {
            using SafeFd device = Boot.GuestDeviceNodes.Open("/dev/hwrng", 10, 183, Libc.O_RDONLY);
            for (int count = 0; count < most;)
            {
                nint n = Libc.read(device.Value, dropped, (nuint)(most - count));
                if (n <= 0 && !Check.Retry(n))
                {
                    return;
                }

                count += (int)Math.Max(n, 0);
            }
        }
        catch (LinuxException)
        {
            // The VM has no such device.
        }
    }

    /// <summary>Unmounts what the host serves, which cannot be saved with the VM.</summary>
    internal void PrepareToSave(TtrpcCall call)
    {
        if (agent.Containers.All.Count > 0)
        {
            throw Refusal.WrongState("a VM with containers cannot be prepared to be saved");
        }

        agent.Setup.FileSystems.Unmount();
        call.Complete(new Empty());
    }

    internal static void SetOnlineCpus(OnlineCpus request, TtrpcCall call)
    {
        const string cpus = "/sys/devices/system/cpu/cpu";
        const uint most = 1 << 16;
        if (request.Count is 0 or > most)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"{request.Count} CPUs cannot be on line");
        }

        Boot.GuestMounts.NeedSysfs();

        // The first CPU has no such file: it cannot go off line.
        for (uint cpu = 1; cpu < request.Count || Directory.Exists(Name(cpu)); cpu++)
        {
            string file = Name(cpu) + "/online", wanted = cpu < request.Count ? "1" : "0";
            if (SmallFile.TryRead(null, file) is not { } now)
            {
                throw new TtrpcException(StatusCode.FailedPrecondition, $"the guest's kernel has no CPU {cpu} that comes later");
            }

            if (now.Trim() != wanted)
            {
                SmallFile.Write(null, file, wanted);
            }
        }

        call.Complete(new Empty());

        static string Name(uint cpu) => cpus + cpu.ToString(CultureInfo.InvariantCulture);
    }

    internal void Shutdown()
    {
        SafeFd[] alive = [.. agent.Containers.All.Where(c => c.IsAlive).Select(c => c.Init!.Child!.PidFd!.Duplicate())];
        foreach (Container container in agent.Containers.All)
        {
            ContainerRemoval.Kill(container);
        }

        // What they wrote must be on the host before the machine is gone; a process stuck in the kernel does not hold it up.
        long deadline = Environment.TickCount64 + ShutdownMilliseconds;
        foreach (SafeFd fd in alive)
        {
            PidFd.WaitForEnd(fd, deadline);
            fd.Dispose();
        }

        Libc.sync();
        agent.Setup.FileSystems.Unmount();
        powerOff();
    }

    private static ulong MemoryTotal(string meminfo)
    {
        const string name = "MemTotal:";
        if (!meminfo.StartsWith(name, StringComparison.Ordinal))
        {
            return 0;
        }

        ReadOnlySpan<char> rest = meminfo.AsSpan(name.Length).TrimStart();
        int space = rest.IndexOf(' ');
        return space > 0 && ulong.TryParse(rest[..space], NumberStyles.None, CultureInfo.InvariantCulture, out ulong kib) ? kib * 1024 : 0;
    }
}
