using MicroVm.Json;

namespace MicroVm.VmmControl.Reading;

/// <summary>The members of the configuration, and where they go: a document that a caller of this runtime wrote is read by these.</summary>
internal static class ConfigMembers
{
    private static readonly Members<FileReference> File = new(
        static () => new FileReference(),
        ("fd", static (v, ref json) => v.Fd = json.Int32()),
        ("path", static (v, ref json) => v.Path = json.Text()));

    private static readonly Members<ConsoleConfig> Console = new(
        static () => new ConsoleConfig(),
        ("input", static (v, ref json) => v.Input = json.Object(File)),
        ("output", static (v, ref json) => v.Output = json.Object(File)));

    private static readonly Members<VsockConfig> Vsock = new(
        static () => new VsockConfig { SocketPath = null! },
        ("cid", static (v, ref json) => v.Cid = json.UInt32() ?? throw DocumentReader.Mismatch()),
        ("socketPath", static (v, ref json) => v.SocketPath = json.Text()!),
        ("listener", static (v, ref json) => v.Listener = json.Object(File)))
    {
        IsWhole = static v => v.SocketPath is not null,
    };

    private static readonly Members<BlockConfig> Block = new(
        static () => new BlockConfig { File = null! },
        ("file", static (v, ref json) => v.File = json.Object(File)!),
        ("readOnly", static (v, ref json) => v.ReadOnly = Flag(ref json)),
        ("id", static (v, ref json) => v.Id = Text(ref json)))
    {
        IsWhole = static v => v.File is not null,
    };

    private static readonly Members<FsExport> Export = new(
        static () => new FsExport { Name = null!, File = null! },
        ("name", static (v, ref json) => v.Name = json.Text()!),
        ("file", static (v, ref json) => v.File = json.Object(File)!),
        ("readOnly", static (v, ref json) => v.ReadOnly = Flag(ref json)),
        ("hidesMounts", static (v, ref json) => v.HidesMounts = Flag(ref json)),
        ("cache", static (v, ref json) => v.Cache = (FsCache)Named(ref json, EnumNames.FsCache)))
    {
        IsWhole = static v => v.Name is not null && v.File is not null,
    };

    private static readonly Members<FsConfig> Fs = new(
        static () => new FsConfig { Tag = null! },
        ("tag", static (v, ref json) => v.Tag = json.Text()!),
        ("stripSetId", static (v, ref json) => v.StripSetId = Flag(ref json)),
        ("exports", static (v, ref json) => v.Exports = List(ref json, Export)))
    {
        IsWhole = static v => v.Tag is not null,
    };

    private static readonly Members<RateLimit> Rate = new(
        static () => new RateLimit(),
        ("bytesPerSecond", static (v, ref json) => v.BytesPerSecond = Int64(ref json)),
        ("burstBytes", static (v, ref json) => v.BurstBytes = Int64(ref json)),
        ("packetsPerSecond", static (v, ref json) => v.PacketsPerSecond = Int64(ref json)),
        ("burstPackets", static (v, ref json) => v.BurstPackets = Int64(ref json)));

    private static readonly Members<NetAttachment> Attachment = new(
        static () => new NetAttachment { Mac = null! },
        ("taps", static (v, ref json) => v.Taps = List(ref json, File)),
        ("mac", static (v, ref json) => v.Mac = json.Text()!),
        ("mtu", static (v, ref json) => v.Mtu = Int32(ref json)),
        ("mtuMayChange", static (v, ref json) => v.MtuMayChange = Flag(ref json)),
        ("receive", static (v, ref json) => v.Receive = json.Object(Rate)),
        ("transmit", static (v, ref json) => v.Transmit = json.Object(Rate)))
    {
        IsWhole = static v => v.Mac is not null,
    };

    private static readonly Members<NetConfig> Net = new(
        static () => new NetConfig(),
        ("queuePairs", static (v, ref json) => v.QueuePairs = Int32(ref json)),
        ("interface", static (v, ref json) => v.Interface = json.Object(Attachment)));

    internal static readonly Members<VmmConfig> Config = new(
        static () => new VmmConfig(),
        ("kvm", static (v, ref json) => v.Kvm = json.Object(File)),
        ("procSelfFd", static (v, ref json) => v.ProcSelfFd = json.Object(File)),
        ("kernel", static (v, ref json) => v.Kernel = json.Object(File)),
        ("pvmKernel", static (v, ref json) => v.PvmKernel = json.Object(File)),
        ("initrd", static (v, ref json) => v.Initrd = json.Object(File)),
        ("commandLine", static (v, ref json) => v.CommandLine = Text(ref json)),
        ("memoryMiB", static (v, ref json) => v.MemoryMiB = Int32(ref json)),
        ("hugePages", static (v, ref json) => v.HugePages = Flag(ref json)),
        ("vcpus", static (v, ref json) => v.Vcpus = Int32(ref json)),
        ("cpuTemplate", static (v, ref json) => v.CpuTemplate = Text(ref json)),
        ("tables", static (v, ref json) => v.Tables = (MachineTables)Named(ref json, EnumNames.MachineTables)),
        ("serial", static (v, ref json) => v.Serial = json.Object(File)),
        ("console", static (v, ref json) => v.Console = json.Object(Console)),
        ("vsock", static (v, ref json) => v.Vsock = json.Object(Vsock)),
        ("entropy", static (v, ref json) => v.Entropy = Flag(ref json)),
        ("block", static (v, ref json) => v.Block = List(ref json, Block)),
        ("pmem", static (v, ref json) => v.Pmem = List(ref json, File)),
        ("fs", static (v, ref json) => v.Fs = List(ref json, Fs)),
        ("net", static (v, ref json) => v.Net = List(ref json, Net)),
        ("control", static (v, ref json) => v.Control = json.Object(File)),
        ("filterSystemCalls", static (v, ref json) => v.FilterSystemCalls = Flag(ref json)),
        ("dieWithParent", static (v, ref json) => v.DieWithParent = Flag(ref json)))
    {
        IsWhole = static v => (v.Kernel ?? v.PvmKernel) is not null,
    };

    internal static readonly Members<ControlRequest> Request = new(
        static () => new ControlRequest { Operation = NoOperation },
        ("operation", static (v, ref json) => v.Operation = (ControlOperation)Named(ref json, EnumNames.ControlOperation)),
        ("tag", static (v, ref json) => v.Tag = json.Text()),
        ("name", static (v, ref json) => v.Name = json.Text()),
        ("readOnly", static (v, ref json) => v.ReadOnly = Flag(ref json)),
        ("cache", static (v, ref json) => v.Cache = (FsCache)Named(ref json, EnumNames.FsCache)),
        ("index", static (v, ref json) => v.Index = Int32(ref json)),
        ("interface", static (v, ref json) => v.Interface = json.Object(Attachment)),
        ("up", static (v, ref json) => v.Up = Flag(ref json)),
        ("mac", static (v, ref json) => v.Mac = json.Text()),
        ("mtu", static (v, ref json) => v.Mtu = json.Int32()))
    {
        IsWhole = static v => v.Operation != NoOperation,
    };

    private const ControlOperation NoOperation = (ControlOperation)(-1);

    private static int Named(ref DocumentReader json, string[] names)
    {
        int at = Array.IndexOf(names, json.Text());
        return at >= 0 ? at : throw DocumentReader.Mismatch();
    }

    private static bool Flag(ref DocumentReader json) => json.Flag() ?? throw DocumentReader.Mismatch();

    private static int Int32(ref DocumentReader json) => json.Int32() ?? throw DocumentReader.Mismatch();

    private static long Int64(ref DocumentReader json) => json.Int64() ?? throw DocumentReader.Mismatch();

    private static string Text(ref DocumentReader json) => json.Text() ?? throw DocumentReader.Mismatch();

    private static List<T> List<T>(ref DocumentReader json, Members<T> members)
        where T : class
    {
        List<T> list = json.List(members) ?? throw DocumentReader.Mismatch();
        return list.Contains(null!) ? throw DocumentReader.Mismatch() : list;
    }
}
