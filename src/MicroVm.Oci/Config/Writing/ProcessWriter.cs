using System.Text.Json;

namespace MicroVm.Oci.Config.Writing;

/// <summary>
/// Writes the process of an <c>exec</c> (config.md, "Process") as the serializer would, without setting it up for the specification,
/// which takes longer than the rest of the command.
/// </summary>
public static class ProcessWriter
{
    /// <summary>Writes the object; members that are null are left out.</summary>
    public static void Write(Utf8JsonWriter writer, Process process)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(process);
        writer.WriteStartObject();
        Flag(writer, "terminal"u8, process.Terminal);
        if (process.ConsoleSize is { } size)
        {
            writer.WriteStartObject("consoleSize"u8);
            Number(writer, "height"u8, size.Height);
            Number(writer, "width"u8, size.Width);
            writer.WriteEndObject();
        }

        if (process.User is { } user)
        {
            Write(writer, user);
        }

        Texts(writer, "args"u8, process.Args);
        Texts(writer, "env"u8, process.Env);
        Text(writer, "cwd"u8, process.Cwd);
        if (process.Capabilities is { } capabilities)
        {
            Write(writer, capabilities);
        }

        if (process.Rlimits is { } limits)
        {
            Write(writer, limits);
        }

        Flag(writer, "noNewPrivileges"u8, process.NoNewPrivileges);
        Text(writer, "apparmorProfile"u8, process.ApparmorProfile);
        Number(writer, "oomScoreAdj"u8, process.OomScoreAdj);
        if (process.Scheduler is { } scheduler)
        {
            Write(writer, scheduler);
        }

        Text(writer, "selinuxLabel"u8, process.SelinuxLabel);
        if (process.IoPriority is { } priority)
        {
            writer.WriteStartObject("ioPriority"u8);
            Text(writer, "class"u8, priority.Class);
            Number(writer, "priority"u8, priority.Priority);
            writer.WriteEndObject();
        }

        if (process.ExecCPUAffinity is { } affinity)
        {
            writer.WriteStartObject("execCPUAffinity"u8);
            Text(writer, "initial"u8, affinity.Initial);
            Text(writer, "final"u8, affinity.Final);
            writer.WriteEndObject();
        }

        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, User user)
    {
        writer.WriteStartObject("user"u8);
        Number(writer, "uid"u8, user.Uid);
        Number(writer, "gid"u8, user.Gid);
        Number(writer, "umask"u8, user.Umask);
        if (user.AdditionalGids is { } groups)
        {
            writer.WriteStartArray("additionalGids"u8);
            groups.ForEach(g => writer.WriteNumberValue(g));
            writer.WriteEndArray();
        }

        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, CapabilityNames names)
    {
        writer.WriteStartObject("capabilities"u8);
        Texts(writer, "bounding"u8, names.Bounding);
        Texts(writer, "effective"u8, names.Effective);
        Texts(writer, "inheritable"u8, names.Inheritable);
        Texts(writer, "permitted"u8, names.Permitted);
        Texts(writer, "ambient"u8, names.Ambient);
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, List<Rlimit> limits)
    {
        writer.WriteStartArray("rlimits"u8);
        foreach (Rlimit? limit in limits)
        {
            if (limit is null)
            {
                writer.WriteNullValue();
                continue;
            }

            writer.WriteStartObject();
            Text(writer, "type"u8, limit.Type);
            Number(writer, "hard"u8, limit.Hard);
            Number(writer, "soft"u8, limit.Soft);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }

    private static void Write(Utf8JsonWriter writer, Scheduler scheduler)
    {
        writer.WriteStartObject("scheduler"u8);
        Text(writer, "policy"u8, scheduler.Policy);
        Number(writer, "nice"u8, scheduler.Nice);
        Number(writer, "priority"u8, scheduler.Priority);
        Texts(writer, "flags"u8, scheduler.Flags);
        Number(writer, "runtime"u8, scheduler.Runtime);
        Number(writer, "deadline"u8, scheduler.Deadline);
        Number(writer, "period"u8, scheduler.Period);
        writer.WriteEndObject();
    }

    private static void Flag(Utf8JsonWriter writer, ReadOnlySpan<byte> name, bool? value)
    {
        if (value is { } flag)
        {
            writer.WriteBoolean(name, flag);
        }
    }

    private static void Number(Utf8JsonWriter writer, ReadOnlySpan<byte> name, long? value)
    {
        if (value is { } number)
        {
            writer.WriteNumber(name, number);
        }
    }

    private static void Number(Utf8JsonWriter writer, ReadOnlySpan<byte> name, ulong? value)
    {
        if (value is { } number)
        {
            writer.WriteNumber(name, number);
        }
    }

    private static void Text(Utf8JsonWriter writer, ReadOnlySpan<byte> name, string? value)
    {
        if (value is not null)
        {
            writer.WriteString(name, value);
        }
    }

    private static void Texts(Utf8JsonWriter writer, ReadOnlySpan<byte> name, List<string>? values)
    {
        if (values is not null)
        {
            writer.WriteStartArray(name);
            values.ForEach(writer.WriteStringValue);
            writer.WriteEndArray();
        }
    }
}
