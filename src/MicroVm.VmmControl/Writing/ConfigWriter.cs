using System.Buffers;
using System.Text.Json;
using MicroVm.Json;

namespace MicroVm.VmmControl.Writing;

/// <summary>
/// Writes the configuration and requests as the serializer would, without setting it up, which takes longer than all else that a
/// short-lived process does with them.
/// </summary>
public static class ConfigWriter
{
    private const int UsualLength = 2048;

    /// <summary>The document of <see cref="VmmConfig"/>.</summary>
    public static byte[] Write(VmmConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return Document(config, Write);
    }

    /// <summary>The document of <see cref="ControlRequest"/>, without a newline.</summary>
    public static byte[] Write(ControlRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        return Document(request, Write);
    }

    private static byte[] Document<T>(T value, Action<Utf8JsonWriter, T> write)
    {
        ArrayBufferWriter<byte> buffer = new(UsualLength);
        using (Utf8JsonWriter writer = new(buffer, new JsonWriterOptions { Encoder = PlainEncoder.Instance }))
        {
            write(writer, value);
        }

        return buffer.WrittenSpan.ToArray();
    }

    private static void Write(Utf8JsonWriter writer, VmmConfig config)
    {
        writer.WriteStartObject();
        Member(writer, "kvm"u8, config.Kvm, Write);
        Member(writer, "procSelfFd"u8, config.ProcSelfFd, Write);
        Member(writer, "kernel"u8, config.Kernel, Write);
        Member(writer, "pvmKernel"u8, config.PvmKernel, Write);
        Member(writer, "initrd"u8, config.Initrd, Write);
        writer.WriteString("commandLine"u8, config.CommandLine);
        writer.WriteNumber("memoryMiB"u8, config.MemoryMiB);
        writer.WriteBoolean("hugePages"u8, config.HugePages);
        writer.WriteNumber("vcpus"u8, config.Vcpus);
        writer.WriteString("cpuTemplate"u8, config.CpuTemplate);
        writer.WriteString("tables"u8, NameOf(config.Tables));
        Member(writer, "serial"u8, config.Serial, Write);
        Member(writer, "console"u8, config.Console, Write);
        Member(writer, "vsock"u8, config.Vsock, Write);
        writer.WriteBoolean("entropy"u8, config.Entropy);
        List(writer, "block"u8, config.Block, Write);
        List(writer, "pmem"u8, config.Pmem, Write);
        List(writer, "fs"u8, config.Fs, Write);
        List(writer, "net"u8, config.Net, Write);
        Member(writer, "control"u8, config.Control, Write);
        writer.WriteBoolean("filterSystemCalls"u8, config.FilterSystemCalls);
        writer.WriteBoolean("dieWithParent"u8, config.DieWithParent);
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, ControlRequest request)
    {
        writer.WriteStartObject();
        writer.WriteString("operation"u8, NameOf(request.Operation));
        Text(writer, "tag"u8, request.Tag);
        Text(writer, "name"u8, request.Name);
        writer.WriteBoolean("readOnly"u8, request.ReadOnly);
        writer.WriteString("cache"u8, NameOf(request.Cache));
        writer.WriteNumber("index"u8, request.Index);
        Member(writer, "interface"u8, request.Interface, Write);
        writer.WriteBoolean("up"u8, request.Up);
        Text(writer, "mac"u8, request.Mac);
        Number(writer, "mtu"u8, request.Mtu);
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, FileReference file)
    {
        Number(writer, "fd"u8, file.Fd);
        Text(writer, "path"u8, file.Path);
    }

    private static void Write(Utf8JsonWriter writer, ConsoleConfig console)
    {
        Member(writer, "input"u8, console.Input, Write);
        Member(writer, "output"u8, console.Output, Write);
    }

    private static void Write(Utf8JsonWriter writer, VsockConfig vsock)
    {
        writer.WriteNumber("cid"u8, vsock.Cid);
        writer.WriteString("socketPath"u8, vsock.SocketPath);
        Member(writer, "listener"u8, vsock.Listener, Write);
    }

    private static void Write(Utf8JsonWriter writer, BlockConfig block)
    {
        Member(writer, "file"u8, block.File, Write);
        writer.WriteBoolean("readOnly"u8, block.ReadOnly);
        writer.WriteString("id"u8, block.Id);
    }

    private static void Write(Utf8JsonWriter writer, FsConfig fs)
    {
        writer.WriteString("tag"u8, fs.Tag);
        List(writer, "exports"u8, fs.Exports, Write);
    }

    private static void Write(Utf8JsonWriter writer, FsExport export)
    {
        writer.WriteString("name"u8, export.Name);
        Member(writer, "file"u8, export.File, Write);
        writer.WriteBoolean("readOnly"u8, export.ReadOnly);
        writer.WriteString("cache"u8, NameOf(export.Cache));
    }

    private static void Write(Utf8JsonWriter writer, NetConfig net)
    {
        writer.WriteNumber("queuePairs"u8, net.QueuePairs);
        Member(writer, "interface"u8, net.Interface, Write);
    }

    private static void Write(Utf8JsonWriter writer, NetAttachment attachment)
    {
        List(writer, "taps"u8, attachment.Taps, Write);
        writer.WriteString("mac"u8, attachment.Mac);
        writer.WriteNumber("mtu"u8, attachment.Mtu);
        writer.WriteBoolean("mtuMayChange"u8, attachment.MtuMayChange);
        Member(writer, "receive"u8, attachment.Receive, Write);
        Member(writer, "transmit"u8, attachment.Transmit, Write);
    }

    private static void Write(Utf8JsonWriter writer, RateLimit limit)
    {
        writer.WriteNumber("bytesPerSecond"u8, limit.BytesPerSecond);
        writer.WriteNumber("burstBytes"u8, limit.BurstBytes);
        writer.WriteNumber("packetsPerSecond"u8, limit.PacketsPerSecond);
        writer.WriteNumber("burstPackets"u8, limit.BurstPackets);
    }

    private static void Text(Utf8JsonWriter writer, ReadOnlySpan<byte> name, string? value)
    {
        if (value is not null)
        {
            writer.WriteString(name, value);
        }
    }

    private static void Number(Utf8JsonWriter writer, ReadOnlySpan<byte> name, int? value)
    {
        if (value is not null)
        {
            writer.WriteNumber(name, value.Value);
        }
    }

    private static void Member<T>(Utf8JsonWriter writer, ReadOnlySpan<byte> name, T? value, Action<Utf8JsonWriter, T> write)
        where T : class
    {
        if (value is not null)
        {
            writer.WriteStartObject(name);
            write(writer, value);
            writer.WriteEndObject();
        }
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

    // The enumerations' own names would be looked up by reflection.
    private static string NameOf(MachineTables tables) => tables switch
    {
        MachineTables.MpTable => nameof(MachineTables.MpTable),
        MachineTables.Acpi => nameof(MachineTables.Acpi),
        _ => nameof(MachineTables.Both),
    };

    private static string NameOf(FsCache cache) => cache switch
    {
        FsCache.Shared => nameof(FsCache.Shared),
        _ => nameof(FsCache.Exclusive),
    };

    private static string NameOf(ControlOperation operation) => operation switch
    {
        ControlOperation.Pause => nameof(ControlOperation.Pause),
        ControlOperation.Resume => nameof(ControlOperation.Resume),
        ControlOperation.Stop => nameof(ControlOperation.Stop),
        ControlOperation.AddExport => nameof(ControlOperation.AddExport),
        ControlOperation.RemoveExport => nameof(ControlOperation.RemoveExport),
        ControlOperation.AttachNet => nameof(ControlOperation.AttachNet),
        ControlOperation.SetNetLink => nameof(ControlOperation.SetNetLink),
        ControlOperation.DetachNet => nameof(ControlOperation.DetachNet),
        _ => nameof(ControlOperation.Info),
    };
}
