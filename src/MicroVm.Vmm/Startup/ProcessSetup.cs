using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Startup;

/// <summary>What the process does to itself before it builds the machine.</summary>
public static unsafe class ProcessSetup
{
    private const int FirstFd = 3;
    private const int SigIgn = 1;

    /// <summary>
    /// Gives up gaining privileges, closes every inherited descriptor that the configuration does not name, ignores
    /// SIGPIPE, and, when asked to, arranges for SIGKILL when the parent ends.
    /// </summary>
    /// <param name="config">The configuration.</param>
    /// <param name="parent">The parent's id as of the start of Main.</param>
    /// <exception cref="ConfigException">The parent has ended already.</exception>
    /// <exception cref="LinuxException">The kernel refuses.</exception>
    public static void Apply(VmmConfig config, int parent)
    {
        ArgumentNullException.ThrowIfNull(config);
        Check.Result(Libc.prctl(Libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
        CloseOthers(NamedDescriptors(config));
        Libc.sigaction_t ignore = new() { sa_handler = (void*)SigIgn };
        Check.Result(Libc.sigaction(Libc.SIGPIPE, &ignore, null), "sigaction(SIGPIPE)");
        if (config.DieWithParent)
        {
            Check.Result(Libc.prctl(Libc.PR_SET_PDEATHSIG, Libc.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)");

            // A parent that ended before the call sends nothing any more.
            if (Libc.getppid() != parent)
            {
                throw new ConfigException("dieWithParent: the parent process has ended already");
            }
        }
    }

    /// <summary>The inherited descriptors that the configuration names.</summary>
    public static SortedSet<int> NamedDescriptors(VmmConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        SortedSet<int> named = [];
        Add(config.Kvm);
        Add(config.ProcSelfFd);
        Add(config.Vsock?.Listener);
        Add(config.Kernel);
        Add(config.PvmKernel);
        Add(config.Initrd);
        Add(config.Restore?.State);
        Add(config.Restore?.Memory);
        Add(config.Restore?.Pages);
        Add(config.Serial);
        Add(config.Console?.Input);
        Add(config.Console?.Output);
        Add(config.Control);
        foreach (BlockConfig block in config.Block)
        {
            Add(block.File);
        }

        foreach (FileReference pmem in config.Pmem)
        {
            Add(pmem);
        }

        foreach (FsConfig fs in config.Fs)
        {
            Add(fs.Sockets);
            foreach (FsExport export in fs.Exports)
            {
                Add(export.File);
            }
        }

        foreach (FileReference tap in config.Net.SelectMany(n => n.Interface?.Taps ?? []))
        {
            Add(tap);
        }

        return named;

        void Add(FileReference? file)
        {
            if (file?.Fd is { } fd)
            {
                named.Add(fd);
            }
        }
    }

    private static void CloseOthers(SortedSet<int> named)
    {
        uint next = FirstFd;
        foreach (int fd in named)
        {
            if (fd >= FirstFd)
            {
                CloseRange(next, (uint)fd - 1);
                next = (uint)fd + 1;
            }
        }

        CloseRange(next, uint.MaxValue);
    }

    private static void CloseRange(uint first, uint last)
    {
        if (first <= last)
        {
            _ = Libc.close_range(first, last, 0);
        }
    }
}
