using System.Text.Json;
using MicroVm.Json;

namespace MicroVm.VmmControl.Writing;

/// <summary>
/// Writes the configuration and requests as the serializer would, without setting it up, which takes longer than all else that a
/// short-lived process does with them.
/// </summary>
public static class ConfigWriter
{
    /// <summary>The document of <see cref="VmmConfig"/>.</summary>
    public static byte[] Write(VmmConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return WriterExtensions.Document(config, Write);
    }

    /// <summary>The document of <see cref="ControlRequest"/>, without a newline.</summary>
    public static byte[] Write(ControlRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return WriterExtensions.Document(request, Write);
    }

    private static void Write(Utf8JsonWriter writer, VmmConfig config)
    {
        writer.WriteStartObject();
        writer.WriteOptional("kvm"u8, config.Kvm, Write);
        writer.WriteOptional("procSelfFd"u8, config.ProcSelfFd, Write);
        writer.WriteOptional("kernel"u8, config.Kernel, Write);
        writer.WriteOptional("pvmKernel"u8, config.PvmKernel, Write);
        writer.WriteOptional("initrd"u8, config.Initrd, Write);
        writer.WriteString("commandLine"u8, config.CommandLine);
        writer.WriteNumber("memoryMiB"u8, config.MemoryMiB);
        writer.WriteBoolean("hugePages"u8, config.HugePages);
        writer.WriteNumber("vcpus"u8, config.Vcpus);
        writer.WriteString("cpuTemplate"u8, config.CpuTemplate);
        writer.WriteString("tables"u8, EnumNames.MachineTables[(int)config.Tables]);
        writer.WriteOptional("serial"u8, config.Serial, Write);
        writer.WriteOptional("console"u8, config.Console, Write);
        writer.WriteOptional("vsock"u8, config.Vsock, Write);
        writer.WriteBoolean("entropy"u8, config.Entropy);
        List(writer, "block"u8, config.Block, Write);
        List(writer, "pmem"u8, config.Pmem, Write);
        List(writer, "fs"u8, config.Fs, Write);
        List(writer, "net"u8, config.Net, Write);
        writer.WriteOptional("control"u8, config.Control, Write);
        writer.WriteBoolean("filterSystemCalls"u8, config.FilterSystemCalls);
        writer.WriteBoolean("dieWithParent"u8, config.DieWithParent);
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, ControlRequest request)
    {
        writer.WriteStartObject();
        writer.WriteString("operation"u8, EnumNames.ControlOperation[(int)request.Operation]);
        writer.WriteOptional("tag"u8, request.Tag);
        writer.WriteOptional("name"u8, request.Name);
        writer.WriteBoolean("readOnly"u8, request.ReadOnly);
        writer.WriteString("cache"u8, EnumNames.FsCache[(int)request.Cache]);
        writer.WriteNumber("index"u8, request.Index);
        writer.WriteOptional("interface"u8, request.Interface, Write);
        writer.WriteBoolean("up"u8, request.Up);
        writer.WriteOptional("mac"u8, request.Mac);
        writer.WriteOptional("mtu"u8, request.Mtu);
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, FileReference file)
    {
        writer.WriteOptional("fd"u8, file.Fd);
        writer.WriteOptional("path"u8, file.Path);
    }

    private static void Write(Utf8JsonWriter writer, ConsoleConfig console)
    {
        writer.WriteOptional("input"u8, console.Input, Write);
        writer.WriteOptional("output"u8, console.Output, Write);
    }

    private static void Write(Utf8JsonWriter writer, VsockConfig vsock)
    {
        writer.WriteNumber("cid"u8, vsock.Cid);
        writer.WriteString("socketPath"u8, vsock.SocketPath);
        writer.WriteOptional("listener"u8, vsock.Listener, Write);
    }

    private static void Write(Utf8JsonWriter writer, BlockConfig block)
    {
        writer.WriteOptional("file"u8, block.File, Write);
        writer.WriteBoolean("readOnly"u8, block.ReadOnly);
        writer.WriteString("id"u8, block.Id);
    }

    private static void Write(Utf8JsonWriter writer, FsConfig fs)
    {
        writer.WriteString("tag"u8, fs.Tag);
        writer.WriteBoolean("stripSetId"u8, fs.StripSetId);
        List(writer, "exports"u8, fs.Exports, Write);
    }

    private static void Write(Utf8JsonWriter writer, FsExport export)
    {
        writer.WriteString("name"u8, export.Name);
        writer.WriteOptional("file"u8, export.File, Write);
        writer.WriteBoolean("readOnly"u8, export.ReadOnly);
        writer.WriteBoolean("hidesMounts"u8, export.HidesMounts);
        writer.WriteString("cache"u8, EnumNames.FsCache[(int)export.Cache]);
    }

    private static void Write(Utf8JsonWriter writer, NetConfig net)
    {
        writer.WriteNumber("queuePairs"u8, net.QueuePairs);
        writer.WriteOptional("interface"u8, net.Interface, Write);
    }

    private static void Write(Utf8JsonWriter writer, NetAttachment attachment)
    {
        List(writer, "taps"u8, attachment.Taps, Write);
        writer.WriteString("mac"u8, attachment.Mac);
        writer.WriteNumber("mtu"u8, attachment.Mtu);
        writer.WriteBoolean("mtuMayChange"u8, attachment.MtuMayChange);
        writer.WriteOptional("receive"u8, attachment.Receive, Write);
        writer.WriteOptional("transmit"u8, attachment.Transmit, Write);
    }

    private static void Write(Utf8JsonWriter writer, RateLimit limit)
    {
        writer.WriteNumber("bytesPerSecond"u8, limit.BytesPerSecond);
        writer.WriteNumber("burstBytes"u8, limit.BurstBytes);
        writer.WriteNumber("packetsPerSecond"u8, limit.PacketsPerSecond);
        writer.WriteNumber("burstPackets"u8, limit.BurstPackets);
    }

    private static void List<T>(Utf8JsonWriter writer, ReadOnlySpan<byte> name, IReadOnlyList<T> values, Action<Utf8JsonWriter, T> write)
    {
        writer.WriteStartArray(name);
        for (int i = 0; i < values.Count; i++)
        {
            writer.WriteStartObject();
            write(writer, values[i]);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }
}
