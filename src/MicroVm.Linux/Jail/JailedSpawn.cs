using System.Text;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Jail;

/// <summary>
/// A program to start in a jail: user, mount, network, PID, IPC and UTS namespaces of its own, one directory as its whole
/// file system, the capabilities that are listed and only within its user namespace, and nothing inherited but the
/// descriptors that are listed. The namespaces end with the process: nothing stays behind on the host.
/// </summary>
/// <remarks>
/// The user namespace maps ids to themselves, so that files keep their owners: all of them, or those that are listed. Its
/// capabilities reach nothing but what the descriptors do, and of that no file whose owner is not mapped. The program ends with
/// SIGKILL when the thread that started it ends.
/// </remarks>
public sealed unsafe class JailedSpawn
{
    private const int NoFd = -1;
    private const int StepsPerDescriptor = 3;

    // Numbers of namespaces (PROC_DYNAMIC_FIRST of the kernel) are from here to 2^32 - 1.
    private const uint FirstNamespace = 0xF000_0000;
    private const nuint Namespaces = Libc.CLONE_NEWUSER | Libc.CLONE_NEWNS | Libc.CLONE_NEWNET | Libc.CLONE_NEWPID | Libc.CLONE_NEWIPC | Libc.CLONE_NEWUTS;
    private static readonly IdRange[] AllIds = [new(0, uint.MaxValue)];
    private readonly List<SafeFd?> _descriptors = [];
    private readonly nint[] _setIds = new nint[2];

    private enum Step : uint
    {
        DieWithParent = 1,
        Identity,
        Session,
        Mounts,
        ProcSelfFd,
        Root,
        Descriptors,
        Limits,
        Signals,
        Capabilities,
        User,
        Alive,
        Exec,
    }

    /// <summary>A static executable, open for reading.</summary>
    public required SafeFd Program { get; init; }

    /// <summary>What messages call the program.</summary>
    public required string Name { get; init; }

    /// <summary>Arguments, the program's own name first.</summary>
    public required IReadOnlyList<string> Arguments { get; init; }

    /// <summary>Environment, "NAME=value".</summary>
    public IReadOnlyList<string> Environment { get; init; } = [];

    /// <summary>Path of the directory that becomes the program's root: read-only, and without set-id, device nodes and executables.</summary>
    public required string Root { get; init; }

    /// <summary>Numbers (CAP_*) of the capabilities that are kept within the user namespace.</summary>
    public IReadOnlyList<int> Capabilities { get; init; } = [];

    /// <summary>
    /// User and group that the program runs as, 0 for root. Its capabilities stay as they are when a thread of it changes its
    /// ids (SECBIT_NO_SETUID_FIXUP of capabilities(7)), whatever the user.
    /// </summary>
    public uint User { get; init; }

    /// <summary>
    /// Adds to <see cref="User"/> a number below 2^28 that no other jail on the host has at the time, in whatever PID namespace it was
    /// started: that of its user namespace.
    /// </summary>
    public bool UniqueUser { get; init; }

    /// <summary>Users that exist in the jail beside its own: files of others have no owner there, and nothing becomes theirs. All by default.</summary>
    public IReadOnlyList<IdRange> Users { get; init; } = AllIds;

    /// <summary>The same for groups.</summary>
    public IReadOnlyList<IdRange> Groups { get; init; } = AllIds;

    /// <summary>Folder of the cgroup (version 2) to start in; that of the calling thread when null.</summary>
    public SafeFd? Cgroup { get; init; }

    /// <summary>How many descriptors the program may have open (RLIMIT_NOFILE), where the host allows so many; else as many as this process.</summary>
    public ulong? OpenFiles { get; init; }

    /// <summary>
    /// How many threads the user of the program may have (RLIMIT_NPROC); as many as this process when null. Only the program's own
    /// count where <see cref="UniqueUser"/> is set.
    /// </summary>
    public ulong? Threads { get; set; }

    /// <summary>How many bytes of private memory the program may write to (RLIMIT_DATA); as many as this process when null.</summary>
    public ulong? PrivateBytes { get; init; }

    /// <summary>As <see cref="Spawn.Add"/>.</summary>
    public int Add(SafeFd descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        _descriptors.Add(descriptor);
        return _descriptors.Count - 1;
    }

    /// <summary>Gives the program its own /proc/self/fd, and nothing else of /proc; the number in the program.</summary>
    public int AddProcSelfFd()
    {
        _descriptors.Add(null);
        return _descriptors.Count - 1;
    }

    /// <summary>Starts the program; the calling thread counts as its parent.</summary>
    /// <exception cref="LinuxException">A step failed; the message names it.</exception>
    public SpawnedProcess Start()
    {
        (SafeFd goRead, SafeFd goWrite) = Pipe.Create();
        (SafeFd reportRead, SafeFd low) = Pipe.Create();
        List<SafeFd> high = [];
        SafeFd reportWrite = Raise(low, _descriptors.Count);
        low.Dispose();
        using ChildProgram program = new(reportWrite.Value, moreSteps: StepsPerDescriptor * _descriptors.Count);
        int dumpable = Libc.prctl(Libc.PR_GET_DUMPABLE, 0, 0, 0, 0);
        try
        {
            Prepare(program, goRead.Value, goWrite.Value, reportWrite.Value, high);
            Libc.clone_args args = new()
            {
                flags = (ulong)Namespaces | Libc.CLONE_VM | Libc.CLONE_CLEAR_SIGHAND | (Cgroup is null ? 0 : Libc.CLONE_INTO_CGROUP),
                exit_signal = Libc.SIGCHLD,
                cgroup = (ulong)(Cgroup?.Value ?? 0),
            };
            nint pid = ChildCode.Spawn(&args, program.Steps);
            if (pid < 0)
            {
                throw new LinuxException((Errno)(-pid), "clone3 (user, mount, network and PID namespaces)", Name);
            }

            SpawnedProcess process = new((int)pid);
            reportWrite.Dispose();
            Follow(process, goWrite, reportRead);
            return process;
        }
        finally
        {
            high.ForEach(fd => fd.Dispose());
            goRead.Dispose();
            goWrite.Dispose();
            reportRead.Dispose();
            reportWrite.Dispose();

            // A change of user makes the memory that the child shares with this process unreadable for others.
            _ = Libc.prctl(Libc.PR_SET_DUMPABLE, (nuint)dumpable, 0, 0, 0);
        }
    }

    private void Prepare(ChildProgram program, int goRead, int goWrite, int report, List<SafeFd> high)
    {
        int count = _descriptors.Count;
        Add(program, Step.DieWithParent, Libc.SYS_prctl, Libc.PR_SET_PDEATHSIG, Libc.SIGKILL);

        // The end of its pipe shows a parent that ended before that; the pipe's other end must not be kept here.
        Add(program, Step.DieWithParent, Libc.SYS_close, goWrite);
        program.AddWait(goRead);
        Add(program, Step.Identity, Libc.SYS_setgroups, 0, 0);
        Add(program, Step.Session, Libc.SYS_setsid);
        Add(program, Step.Mounts, Libc.SYS_mount, 0, program.String("/"), 0, (nint)(Libc.MS_REC | Libc.MS_PRIVATE), 0);
        AddDescriptors(program, high);
        AddRoot(program);
        Add(program, Step.Limits, Libc.SYS_prlimit64, 0, Libc.RLIMIT_CORE, program.Record<ulong>([0, 0]), 0);
        Add(program, Step.Signals, Libc.SYS_rt_sigprocmask, Libc.SIG_SETMASK, program.Record<ulong>([0]), 0, 8);
        Add(program, Step.Capabilities, Libc.SYS_prctl, Libc.PR_SET_NO_NEW_PRIVS, 1);
        for (int capability = 0; capability <= Libc.CAP_LAST_CAP; capability++)
        {
            if (!Capabilities.Contains(capability))
            {
                // EINVAL: a kernel that does not know so many.
                program.Add((uint)Step.Capabilities, StepMode.Ignore, Libc.SYS_prctl, Libc.PR_CAPBSET_DROP, capability);
            }
        }

        AddUser(program);

        // A change of user cleared it. A parent that ended in between does not read the report, whose other end is its alone.
        Add(program, Step.Alive, Libc.SYS_prctl, Libc.PR_SET_PDEATHSIG, Libc.SIGKILL);
        program.AddReport((uint)Step.Alive, report);

        // The report pipe, which has to last until then, is closed by the exec itself.
        const int cloexec = 4;
        Add(program, Step.Descriptors, Libc.SYS_close_range, count, int.MaxValue, cloexec);
        Add(program, Step.Exec, Libc.SYS_execveat, KeepHigh(Program, high, count).Value, program.String(""),
            program.Strings(Arguments), program.Strings(Environment), Libc.AT_EMPTY_PATH);
    }

    private void AddDescriptors(ChildProgram program, List<SafeFd> high)
    {
        // As Spawn does: sources above every target, so that no dup3 overwrites one still to come.
        int count = _descriptors.Count;
        for (int target = 0; target < count; target++)
        {
            if (_descriptors[target] is { } source)
            {
                Add(program, Step.Descriptors, Libc.SYS_dup3, KeepHigh(source, high, count).Value, target, 0);
                continue;
            }

            ChildStep* open = Add(
                program, Step.ProcSelfFd, Libc.SYS_open_tree, Libc.AT_FDCWD, program.String("/proc/self/fd"),
                (nint)(Libc.OPEN_TREE_CLONE | Libc.OPEN_TREE_CLOEXEC));
            ChildStep* raise = Add(program, Step.ProcSelfFd, Libc.SYS_fcntl, NoFd, Libc.F_DUPFD_CLOEXEC, count);
            ChildStep* place = Add(program, Step.ProcSelfFd, Libc.SYS_dup3, NoFd, target, 0);
            open->Store = (nint*)&raise->Arguments[0];
            raise->Store = (nint*)&place->Arguments[0];
        }
    }

    private void AddUser(ChildProgram program)
    {
        // Locked: what changes its ids later cannot gain or lose by it.
        const int fixedIds = Libc.SECBIT_NO_SETUID_FIXUP | Libc.SECBIT_NO_SETUID_FIXUP_LOCKED;
        Add(program, Step.User, Libc.SYS_prctl, Libc.PR_SET_SECUREBITS, fixedIds);
        _setIds[0] = (nint)Add(program, Step.User, Libc.SYS_setresgid, (nint)User, (nint)User, (nint)User);
        _setIds[1] = (nint)Add(program, Step.User, Libc.SYS_setresuid, (nint)User, (nint)User, (nint)User);
        ulong kept = Capabilities.Aggregate(0ul, (set, capability) => set | (1ul << capability));
        uint low = (uint)kept, highHalf = (uint)(kept >> 32);
        nint header = program.Record([new Libc.__user_cap_header_struct { version = Libc._LINUX_CAPABILITY_VERSION_3 }]);
        nint sets = program.Record(
        [
            new Libc.__user_cap_data_struct { effective = low, permitted = low, inheritable = low },
            new Libc.__user_cap_data_struct { effective = highHalf, permitted = highHalf, inheritable = highHalf },
        ]);
        Add(program, Step.Capabilities, Libc.SYS_capset, header, sets);
        foreach (int capability in Capabilities)
        {
            // Else the program would start without it unless it is root.
            Add(program, Step.Capabilities, Libc.SYS_prctl, Libc.PR_CAP_AMBIENT, Libc.PR_CAP_AMBIENT_RAISE, capability);
        }
    }

    private void AddRoot(ChildProgram program)
    {
        nint here = program.String(".");
        nint root = program.String(Root);
        Add(program, Step.Root, Libc.SYS_chdir, root);
        Add(program, Step.Root, Libc.SYS_mount, here, here, 0, (nint)Libc.MS_BIND, 0);

        // The working directory is still beneath the new mount.
        Add(program, Step.Root, Libc.SYS_chdir, root);
        Add(program, Step.Root, Libc.SYS_pivot_root, here, here);
        Add(program, Step.Root, Libc.SYS_umount2, here, Libc.MNT_DETACH);
        const ulong flags = Libc.MS_REMOUNT | Libc.MS_BIND | Libc.MS_RDONLY | Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC;
        nint top = program.String("/");
        Add(program, Step.Root, Libc.SYS_chdir, top);
        Add(program, Step.Root, Libc.SYS_mount, 0, top, 0, (nint)flags, 0);
    }

    private void Follow(SpawnedProcess process, SafeFd go, SafeFd report)
    {
        try
        {
            uint user = ChooseUser(process.Pid);
            Map($"/proc/{process.Pid}/uid_map", Users, user);
            Map($"/proc/{process.Pid}/gid_map", Groups, user);
            Limit(process, Libc.RLIMIT_NOFILE, OpenFiles, mayFail: true);
            Limit(process, Libc.RLIMIT_NPROC, Threads, mayFail: false);
            Limit(process, Libc.RLIMIT_DATA, PrivateBytes, mayFail: false);

            // What the caller may write is not what a VM may: its memory is a file, and it writes for processes that have limits of their own.
            Limit(process, Libc.RLIMIT_FSIZE, FileSizeLimit.Hard, mayFail: false);
            Limit(process, Libc.RLIMIT_FSIZE, ulong.MaxValue, mayFail: true);
            HostFile.WriteAll(go, "!"u8, "start");
            int* record = stackalloc int[2];
            nint n;
            do
            {
                n = Libc.read(report.Value, record, 8);
            }
            while (Check.Retry(n) || (n == 8 && record[1] == 0));
            if (n == 8)
            {
                throw new LinuxException((Errno)record[1], $"jail: {Describe((Step)record[0])}", Name);
            }
        }
        catch
        {
            process.Kill();
            process.Dispose();
            throw;
        }
    }

    private string Describe(Step step) => step switch
    {
        Step.Mounts => "private mounts",
        Step.ProcSelfFd => "/proc/self/fd",
        Step.Root => $"root directory {Root}",
        Step.Exec => "execute",
        _ => step.ToString().ToLowerInvariant(),
    };

    private static ChildStep* Add(ChildProgram program, Step step, long number, nint a0 = 0, nint a1 = 0, nint a2 = 0, nint a3 = 0, nint a4 = 0) =>
        program.Add((uint)step, StepMode.Report, number, a0, a1, a2, a3, a4);

    /// <summary>The child, which shares this process's memory, waits before the steps that set its ids.</summary>
    private uint ChooseUser(int pid)
    {
        if (!UniqueUser)
        {
            return User;
        }

        Libc.statx_t status;
        string path = $"/proc/{pid}/ns/user";
        fixed (byte* name = Encoding.UTF8.GetBytes(path + '\0'))
        {
            Check.Result(Libc.statx(Libc.AT_FDCWD, name, 0, Libc.STATX_INO, &status), "statx", path);
        }

        uint user = User + ((uint)status.stx_ino & ~FirstNamespace);
        foreach (nint step in _setIds)
        {
            for (int i = 0; i < 3; i++)
            {
                Volatile.Write(ref ((ChildStep*)step)->Arguments[i], user);
            }
        }

        return user;
    }

    // From outside: root within has no right to raise a limit.
    private void Limit(SpawnedProcess process, int resource, ulong? value, bool mayFail)
    {
        if (value is { } count)
        {
            Libc.rlimit limit = new() { rlim_cur = count, rlim_max = count };
            if (Libc.prlimit64(process.Pid, resource, &limit, null) < 0 && !(mayFail && Check.LastErrno == Errno.EPERM))
            {
                Check.Throw($"prlimit({resource})", Name);
            }
        }
    }

    private static void Map(string path, IReadOnlyList<IdRange> ids, uint own)
    {
        using SafeFd map = SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_CLOEXEC, 0), "open", path);
        HostFile.WriteAll(map, Encoding.ASCII.GetBytes(IdRange.ToMap(ids, own)), path);
    }

    private static SafeFd Raise(SafeFd source, int above) =>
        SafeFd.From(Libc.fcntl(source.Value, Libc.F_DUPFD_CLOEXEC, above), "fcntl(F_DUPFD_CLOEXEC)");

    private static SafeFd KeepHigh(SafeFd source, List<SafeFd> high, int above)
    {
        SafeFd copy = Raise(source, above);
        high.Add(copy);
        return copy;
    }
}
