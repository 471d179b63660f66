using MicroVm.Cli.Parsing;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm update</c>: changes a container's limits.</summary>
internal static class UpdateCommand
{
    private const int MaxDocument = 1 << 20;

    internal static Command Command => new()
    {
        Name = "update",
        Arguments = "<container-id>",
        Help = "update container resource constraints",
        MinArguments = 1,
        MaxArguments = 1,
        Flags =
        [
            new("resources, r", "FILE", "path to the file with the resources to update, - for standard input; the flags below are then ignored"),
            new("blkio-weight", "N", "relative weight of I/O, 10 to 1000") { Kind = FlagKind.Number },
            new("cpu-period", "US", "CPU period of the bandwidth limit in microseconds"),
            new("cpu-quota", "US", "CPU time in a period in microseconds"),
            new("cpu-burst", "US", "CPU time above the quota that may be saved up, in microseconds"),
            new("cpu-share", "N", "CPU shares (relative weight)"),
            new("cpu-rt-period", "US", "ignored with a warning: cgroup v2 has no such setting"),
            new("cpu-rt-runtime", "US", "ignored with a warning: cgroup v2 has no such setting"),
            new("cpuset-cpus", "LIST", "CPUs to use"),
            new("cpuset-mems", "LIST", "memory nodes to use"),
            new("cpu-idle", "0|1", "schedule the container as idle"),
            new("memory", "BYTES", "memory limit"),
            new("memory-reservation", "BYTES", "memory reservation or soft limit"),
            new("memory-swap", "BYTES", "total of memory and swap; -1 to enable unlimited swap"),
            new("kernel-memory", "BYTES", "accepted for callers of runc: a warning"),
            new("kernel-memory-tcp", "BYTES", "accepted for callers of runc: a warning"),
            new("pids-limit", "N", "maximum number of processes") { Kind = FlagKind.Number },
            new("l3-cache-schema", "TEXT", "refused: cache allocation belongs to the host"),
            new("mem-bw-schema", "TEXT", "refused: bandwidth allocation belongs to the host"),
        ],
        Run = call =>
        {
            foreach (string refused in (string[])["l3-cache-schema", "mem-bw-schema"])
            {
                if (call.Flags.Has(refused))
                {
                    throw SpecException.Unsupported("--" + refused, "cache and bandwidth allocation belong to the host");
                }
            }

            Sandbox.Runtime.ContainerRuntime runtime = call.Runtime;
            _ = runtime.State(call.Id);
            if (call.Flags.Text("resources") is { } file)
            {
                runtime.Update(call.Id, Document(file));
                return 0;
            }

            if (call.Flags.Has("kernel-memory") || call.Flags.Has("kernel-memory-tcp"))
            {
                call.Log.Write(LogLevel.Warning, "Kernel memory settings are ignored and will be removed");
            }

            runtime.Update(call.Id, FromFlags(call.Flags));
            return 0;
        },
    };

    private static Resources Document(string file)
    {
        try
        {
            return file == "-" ? StandardInput() : SpecReader.Parse(HostFile.ReadAllBytes(file, MaxDocument), file, SpecDocument.Resources);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"open {file}: {e.Reason}", e);
        }
    }

    private static Resources StandardInput()
    {
        // By its descriptor: a socket cannot be opened by name.
        const string name = "standard input";
        using SafeFd input = new(0);
        return SpecReader.Parse(HostFile.ReadToEnd(input, MaxDocument, name), name, SpecDocument.Resources);
    }

    private static Resources FromFlags(FlagValues flags)
    {
        bool Any(params string[] names) => names.Any(flags.Has);
        T? Value<T>(string name)
            where T : struct, System.Numerics.IBinaryInteger<T>, System.Numerics.IMinMaxValue<T> => flags.Text(name) is { } text ? Quantities.Number<T>(text, name) : null;
        long? Bytes(string name) => flags.Text(name) is { } text ? Quantities.Bytes(text, name) : null;
        return new Resources
        {
            Memory = !Any("memory", "memory-reservation", "memory-swap") ? null : new MemoryResources
            {
                Limit = Bytes("memory"),
                Reservation = Bytes("memory-reservation"),
                Swap = Bytes("memory-swap"),
            },
            Cpu = !Any("cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period", "cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "cpu-idle") ? null : new CpuResources
            {
                Period = Value<ulong>("cpu-period"),
                Quota = Value<long>("cpu-quota"),
                Burst = Value<ulong>("cpu-burst"),
                Shares = Value<ulong>("cpu-share"),
                RealtimePeriod = Value<ulong>("cpu-rt-period"),
                RealtimeRuntime = Value<long>("cpu-rt-runtime"),
                Cpus = flags.Text("cpuset-cpus"),
                Mems = flags.Text("cpuset-mems"),
                Idle = Value<long>("cpu-idle"),
            },
            Pids = flags.Has("pids-limit") ? new PidsResources { Limit = Value<long>("pids-limit") } : null,
            BlockIO = flags.Has("blkio-weight") ? new BlockIoResources { Weight = Value<ushort>("blkio-weight") } : null,
        };
    }
}
