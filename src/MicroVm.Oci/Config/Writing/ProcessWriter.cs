using System.Text.Json;
using MicroVm.Json;

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
        writer.WriteOptional("terminal"u8, process.Terminal);
        writer.WriteOptional("consoleSize"u8, process.ConsoleSize, Write);
        writer.WriteOptional("user"u8, process.User, Write);
        writer.WriteOptional("args"u8, process.Args);
        writer.WriteOptional("env"u8, process.Env);
        writer.WriteOptional("cwd"u8, process.Cwd);
        writer.WriteOptional("capabilities"u8, process.Capabilities, Write);
        if (process.Rlimits is { } limits)
        {
            Write(writer, limits);
        }

        writer.WriteOptional("noNewPrivileges"u8, process.NoNewPrivileges);
        writer.WriteOptional("apparmorProfile"u8, process.ApparmorProfile);
        writer.WriteOptional("oomScoreAdj"u8, process.OomScoreAdj);
        writer.WriteOptional("scheduler"u8, process.Scheduler, Write);
        writer.WriteOptional("selinuxLabel"u8, process.SelinuxLabel);
        writer.WriteOptional("ioPriority"u8, process.IoPriority, Write);
        writer.WriteOptional("execCPUAffinity"u8, process.ExecCPUAffinity, Write);
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, User user)
    {
        writer.WriteOptional("uid"u8, user.Uid);
        writer.WriteOptional("gid"u8, user.Gid);
        writer.WriteOptional("umask"u8, user.Umask);
        if (user.AdditionalGids is { } groups)
        {
            writer.WriteStartArray("additionalGids"u8);
            groups.ForEach(g => writer.WriteNumberValue(g));
            writer.WriteEndArray();
        }
    }

    private static void Write(Utf8JsonWriter writer, CapabilityNames names)
    {
        writer.WriteOptional("bounding"u8, names.Bounding);
        writer.WriteOptional("effective"u8, names.Effective);
        writer.WriteOptional("inheritable"u8, names.Inheritable);
        writer.WriteOptional("permitted"u8, names.Permitted);
        writer.WriteOptional("ambient"u8, names.Ambient);
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
            writer.WriteOptional("type"u8, limit.Type);
            writer.WriteOptional("hard"u8, limit.Hard);
            writer.WriteOptional("soft"u8, limit.Soft);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }

    private static void Write(Utf8JsonWriter writer, Scheduler scheduler)
    {
        writer.WriteOptional("policy"u8, scheduler.Policy);
        writer.WriteOptional("nice"u8, scheduler.Nice);
        writer.WriteOptional("priority"u8, scheduler.Priority);
        writer.WriteOptional("flags"u8, scheduler.Flags);
        writer.WriteOptional("runtime"u8, scheduler.Runtime);
        writer.WriteOptional("deadline"u8, scheduler.Deadline);
        writer.WriteOptional("period"u8, scheduler.Period);
    }

    private static void Write(Utf8JsonWriter writer, ConsoleSize size)
    {
        writer.WriteOptional("height"u8, size.Height);
        writer.WriteOptional("width"u8, size.Width);
    }

    private static void Write(Utf8JsonWriter writer, IoPriority priority)
    {
        writer.WriteOptional("class"u8, priority.Class);
        writer.WriteOptional("priority"u8, priority.Priority);
    }

    private static void Write(Utf8JsonWriter writer, ExecCpuAffinity affinity)
    {
        writer.WriteOptional("initial"u8, affinity.Initial);
        writer.WriteOptional("final"u8, affinity.Final);
    }
}
