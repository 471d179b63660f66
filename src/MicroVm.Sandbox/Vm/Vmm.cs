using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Templates;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Writing;

namespace MicroVm.Sandbox.Vm;

/// <summary>A running <c>microvm-vmm</c>; killed when disposed.</summary>
internal sealed unsafe class Vmm : IDisposable
{
    private const int ConsoleLines = 8;

    // A pipe holds no more.
    private const int MaxErrors = 64 << 10;

    // A guest that walks a large tree makes its VMM hold a descriptor for each file.
    private const ulong OpenFiles = 1 << 20;

    // Tables of the file server, buffers and heap; the guest's memory is shared memory, which does not count.
    private const ulong PrivateBytes = 512 << 20;

    // The main thread, the runtime's, and a few that nobody has made yet.
    private const int SpareThreads = 8;
    private const int ThreadsOfFiles = 2;

    // Those that give memory back: the balloon's and virtio-mem's.
    private const int ThreadsOfMemory = 2;

    /// <summary>
    /// Room for files that are mapped shared, 64 pieces at once. It costs the host 320 KiB, and the guest 2 MiB of its memory with
    /// the first such file.
    /// </summary>
    private const int DaxWindowMiB = 128;

    // A VMM's own user, to which no account belongs: above every range that subordinate ids and systemd's containers are taken
    // from.
    private const uint FirstUser = 0x7000_0000;

    // What the virtio-fs server needs to make files for any user of the guest; within the VMM's user namespace only.
    private static readonly int[] Capabilities =
    [
        Libc.CAP_CHOWN, Libc.CAP_DAC_OVERRIDE, Libc.CAP_DAC_READ_SEARCH, Libc.CAP_FOWNER, Libc.CAP_FSETID, Libc.CAP_SETGID, Libc.CAP_SETUID,
        Libc.CAP_SETFCAP,
    ];

    private readonly SafeFd _errors;
    private readonly ConsoleTail _console;
    private readonly IReadOnlyList<(int Fd, string Path)> _names;

    private Vmm(SpawnedProcess process, SafeFd errors, ConsoleTail console, VmmControlClient control, SafeFd sockets, IReadOnlyList<(int Fd, string Path)> names)
    {
        Sockets = sockets;
        _names = names;
        Control = control;
        Process = process;
        _errors = errors;
        _console = console;
    }

    /// <summary>Its control socket.</summary>
    internal VmmControlClient Control { get; }

    /// <summary>This side's end of the channel on which sockets are lent to the VMM (<see cref="SocketNotice"/>).</summary>
    internal SafeFd Sockets { get; }

    /// <summary>The VMM's process.</summary>
    internal SpawnedProcess Process { get; }

    /// <summary>
    /// Starts a VMM that ends with this process. It inherits the files named here and nothing else, so that nobody who
    /// waits for the end of our standard streams waits for the VM. It is jailed: its root is the folder of
    /// <paramref name="vsockPath"/>, where its sockets are and nothing else, its namespaces are its own, and it has no rights
    /// over anything but the files it is given.
    /// </summary>
    /// <param name="files">Kernel, agent and VMM.</param>
    /// <param name="shape">The VM's size.</param>
    /// <param name="vsockPath">Where to listen for the guest.</param>
    /// <param name="exports">The files of the container.</param>
    /// <param name="network">Its interfaces.</param>
    /// <param name="consoleLog">Where the guest's console goes; nowhere when null.</param>
    /// <param name="cgroup">The cgroup of version 2 to be born in.</param>
    /// <param name="users">With a user namespace, its users: no file of others can be made or changed, whatever becomes of the VMM.</param>
    /// <param name="groups">The same for groups.</param>
    /// <param name="template">A template to start from; null to boot. It stays the caller's.</param>
    /// <exception cref="SandboxException">A file cannot be opened, or the VMM cannot be executed.</exception>
    internal static Vmm Start(RuntimeFiles files, VmShape shape, string vsockPath, IReadOnlyList<Export> exports, VmNetwork? network, string? consoleLog, SafeFd? cgroup = null,
        IReadOnlyList<IdMapping>? users = null, IReadOnlyList<IdMapping>? groups = null, Template? template = null) =>
        Start(files, shape, vsockPath, exports, add => network?.Configure(add, template is null ? null : TemplateShape.Windows) ?? [], consoleLog, cgroup, users, groups, template, saves: false);

    /// <summary>Starts a VMM whose VM is to be saved as a template.</summary>
    /// <exception cref="SandboxException">A file cannot be opened, or the VMM cannot be executed.</exception>
    internal static Vmm StartForTemplate(RuntimeFiles files, VmShape shape, string vsockPath) =>
        Start(files, shape, vsockPath, [], _ => TemplateShape.FreeWindows(shape.Vcpus), null, null, null, null, null, saves: true);

    /// <summary>Starts a VMM from a template that is being made, which stays the caller's.</summary>
    /// <exception cref="SandboxException">A file cannot be opened, or the VMM cannot be executed.</exception>
    internal static Vmm StartFrom(Template template, RuntimeFiles files, VmShape shape, string vsockPath) =>
        Start(files, shape, vsockPath, [], _ => TemplateShape.FreeWindows(shape.Vcpus), null, null, null, null, template, saves: false);

    private static Vmm Start(RuntimeFiles files, VmShape shape, string vsockPath, IReadOnlyList<Export> exports, Func<Func<SafeFd, int>, IReadOnlyList<NetConfig>> network, string? consoleLog, SafeFd? cgroup,
        IReadOnlyList<IdMapping>? users, IReadOnlyList<IdMapping>? groups, Template? template, bool saves)
    {
        ConsoleTail? console = null;
        SafeFd? errorsRead = null;
        (SafeFd control, SafeFd controlOfVmm) = UnixSocket.Pair();
        using SafeFd vmmEnd = controlOfVmm;
        (SafeFd sockets, SafeFd socketsOfVmm) = UnixSocket.Pair(nonBlocking: true, Libc.SOCK_SEQPACKET);
        using SafeFd vmmSockets = socketsOfVmm;
        try
        {
            using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
            using SafeFd program = Open(files.Vmm, "microvm-vmm");
            using SafeFd kvm = OpenKvm();
            using SafeFd listener = UnixSocket.Listen(vsockPath);
            Func<string, string, SafeFd> open = files.PrivateImages ? OpenCopy : Open;
            using SafeFd? kernel = files.HasOnlyPvmKernel || template is not null ? null : open(files.Kernel, "guest kernel");
            using SafeFd? pvmKernel = template is null && files.PvmKernel is { } path ? open(path, "guest kernel") : null;
            using SafeFd root = files.Initramfs is { } given ? open(given, "initramfs") : open(files.AgentImage, "agent image");
            console = ConsoleTail.Open(consoleLog);
            (errorsRead, SafeFd errorsWrite) = Pipe.Create();
            using SafeFd errors = errorsWrite;
            List<string> arguments = ["microvm-vmm", "--config-fd", ""];
            JailedSpawn spawn = new()
            {
                Program = program,
                Name = files.Vmm,
                Arguments = arguments,
                Root = Path.GetDirectoryName(vsockPath)!,
                Capabilities = shape.StripSetId ? [.. Capabilities.Where(c => c != Libc.CAP_SETFCAP)] : Capabilities,
                User = FirstUser,
                UniqueUser = true,
                Users = Ids(users),
                Groups = Ids(groups),
                OpenFiles = OpenFiles,

                // What the guest writes of a template's memory is the VMM's own.
                PrivateBytes = PrivateBytes + (template is null ? 0 : (ulong)shape.MemoryMiB << 20),
                Cgroup = cgroup,
            };
            spawn.Add(nothing);
            spawn.Add(nothing);
            spawn.Add(errors);
            FileReference rootFile = FileReference.FromFd(spawn.Add(root));
            VmmConfig config = new()
            {
                Kvm = FileReference.FromFd(spawn.Add(kvm)),
                ProcSelfFd = FileReference.FromFd(spawn.AddProcSelfFd()),
                Kernel = kernel is null ? null : FileReference.FromFd(spawn.Add(kernel)),
                PvmKernel = pvmKernel is null ? null : FileReference.FromFd(spawn.Add(pvmKernel)),
                Initrd = files.Initramfs is null ? null : rootFile,
                Pmem = files.Initramfs is null ? [rootFile] : [],
                Serial = FileReference.FromFd(spawn.Add(console.Write)),
                CommandLine = VmCommandLine.Build(shape.KernelArguments, files.Initramfs is not null),
                MemoryMiB = shape.MemoryMiB,
                Vcpus = shape.Vcpus,
                MaxVcpus = shape.MaxVcpus,
                CpuTemplate = shape.CpuTemplate,
                Tables = MachineTables.MpTable,
                Vsock = new VsockConfig { SocketPath = "/" + Path.GetFileName(vsockPath), Listener = FileReference.FromFd(spawn.Add(listener)) },
                Fs = [new FsConfig { Tag = Export.Tag, StripSetId = shape.StripSetId, Sockets = FileReference.FromFd(spawn.Add(socketsOfVmm)), DaxWindowMiB = shape.MapsFiles ? DaxWindowMiB : 0, Exports = [.. exports.Select(e => new FsExport
                {
                    Name = e.Name, File = FileReference.FromFd(spawn.Add(e.File)), ReadOnly = e.ReadOnly, HidesMounts = e.HidesMounts,
                    SharesSockets = e.ShowsSockets,
                    Cache = e.Name == Export.Rootfs ? FsCache.Exclusive : FsCache.Shared,
                })] }],
                Net = network(spawn.Add),
                Restore = template is null ? null : new RestoreConfig
                {
                    State = FileReference.FromFd(spawn.Add(template.State)),
                    Memory = FileReference.FromFd(spawn.Add(template.Memory)),
                    Pages = template.Pages is null ? null : FileReference.FromFd(spawn.Add(template.Pages)),
                },
                Saves = saves,
                Balloon = true,
                GrowthMiB = shape.GrowthMiB,
                Control = FileReference.FromFd(spawn.Add(controlOfVmm)),
                DieWithParent = true,
            };
            (SafeFd configurationRead, SafeFd configurationWrite) = Pipe.Create();
            using SafeFd itsConfiguration = configurationRead, ourConfiguration = configurationWrite;
            arguments[2] = spawn.Add(itsConfiguration).ToString(System.Globalization.CultureInfo.InvariantCulture);
            spawn.Threads = (ulong)(SpareThreads + ThreadsOfFiles + ThreadsOfMemory + shape.MaxVcpus + config.Net.Sum(n => n.QueuePairs));
            SpawnedProcess process = Affinity.With(shape.HostCpus, spawn.Start);
            itsConfiguration.Dispose();

            // Put into words while the program starts.
            _ = Pipe.TryWrite(ourConfiguration, ConfigWriter.Write(config));
            return new Vmm(
                process,
                errorsRead,
                console,
                new VmmControlClient(control, GuestPatience.Vmm),
                sockets,
                [(config.Kernel?.Fd ?? -1, files.Kernel), (config.PvmKernel?.Fd ?? -1, files.PvmKernel ?? ""), (rootFile.Fd!.Value, files.Initramfs ?? files.AgentImage),
                    (config.Restore?.State.Fd ?? -1, template?.StatePath ?? "")]);
        }
        catch (Exception e) when (e is LinuxException or ArgumentException)
        {
            control.Dispose();
            sockets.Dispose();
            console?.Dispose();
            errorsRead?.Dispose();
            throw new SandboxException(e.Message, e);
        }
        catch
        {
            control.Dispose();
            sockets.Dispose();
            console?.Dispose();
            errorsRead?.Dispose();
            throw;
        }
    }

    /// <summary>Reads the guest's console from now on.</summary>
    internal void ReadConsole() => _console.Begin();

    /// <summary>What to tell of a VMM that has ended, or does not answer any more.</summary>
    internal string Describe(string during)
    {
        ExitStatus? exit = Process.TryWait();
        string line = exit is null ? "" : ErrorLine();
        string what = exit switch
        {
            null => "the guest does not answer",
            { Signal: Libc.SIGSYS } => "microvm-vmm made a system call that its filter forbids, and was ended (SIGSYS; the kernel's audit log names the call)",
            { Signal: not 0 } => $"microvm-vmm was ended by signal {exit.Value.Signal}",
            _ => (VmmExitCode)exit.Value.Status switch
            {
                VmmExitCode.PoweredOff => "the guest powered off",
                VmmExitCode.Error => line.Length > 0 ? line : "microvm-vmm failed",
                VmmExitCode.Reset => "the guest kernel panicked or reset the VM",
                VmmExitCode.TripleFault => "the guest triple-faulted",
                VmmExitCode.GuestError => $"the guest cannot run on: {line}",
                VmmExitCode.Stopped => "the VM was stopped",
                _ => $"microvm-vmm exited with status {exit.Value.Status} {line}".TrimEnd(),
            },
        };
        string tail = exit is { Signal: not 0 } or { Status: (int)VmmExitCode.Error } ? "" : _console.LastLines(ConsoleLines);
        return tail.Length == 0 ? $"{during}: {what}" : $"{during}: {what}; the end of its console:\n{tail}";
    }

    /// <summary>Ends the VM. What the container wrote is on the host already: writes through virtio-fs are not delayed.</summary>
    public void Dispose()
    {
        _ = Process.Kill();
        Process.Dispose();
        Control.Dispose();
        Sockets.Dispose();
        _errors.Dispose();
        _console.Dispose();
    }

    private static IReadOnlyList<IdRange> Ids(IReadOnlyList<IdMapping>? mappings) => mappings is { Count: > 0 }
        ? [.. mappings.Select(m => new IdRange(m.HostID ?? 0, m.Size ?? 0))]
        : [new IdRange(0, uint.MaxValue)];

    private static SafeFd OpenKvm()
    {
        int fd = Libc.open(Prerequisites.KvmDevice, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        return fd >= 0 ? new SafeFd(fd) : throw new SandboxException(Prerequisites.KvmProblem() ?? $"{Prerequisites.KvmDevice} cannot be opened");
    }

    /// <summary>A copy in memory, whose pages no other VM can map and time.</summary>
    private static SafeFd OpenCopy(string path, string what)
    {
        using SafeFd file = Open(path, what);
        try
        {
            return MemoryFile.CopyOf(file, Path.GetFileName(path));
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"{what} {path} cannot be copied for the VM: {e.Message}", e);
        }
    }

    private static SafeFd Open(string path, string what)
    {
        try
        {
            return RegularFile.Open(path);
        }
        catch (LinuxException e)
        {
            throw new SandboxException(e.Errno == Errno.EINVAL ? $"{what} {path} is not a regular file" : $"{what} {path} cannot be opened: {LinuxException.Text(e.Errno)}", e);
        }
    }

    /// <summary>The last line of the VMM's standard error: the one that tells why it ended. What its guest was up to comes before.</summary>
    private string ErrorLine()
    {
        _ = Libc.fcntl(_errors.Value, Libc.F_SETFL, Libc.O_NONBLOCK);
        byte[] buffer = new byte[MaxErrors];
        int length = 0;
        fixed (byte* p = buffer)
        {
            nint n;
            while (length < MaxErrors && (n = Libc.read(_errors.Value, p + length, (nuint)(MaxErrors - length))) > 0)
            {
                length += (int)n;
            }
        }

        string text = Encoding.UTF8.GetString(buffer, 0, length).Trim();
        string line = text[(text.LastIndexOf('\n') + 1)..];

        // The VMM knows its files by number only.
        foreach ((int number, string path) in _names)
        {
            line = line.Replace($"(descriptor {number})", path, StringComparison.Ordinal);
        }

        return line;
    }
}
