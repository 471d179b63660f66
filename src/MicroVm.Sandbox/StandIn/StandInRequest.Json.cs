using System.Text.Json;
using MicroVm.Json;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.StandIn;

internal sealed partial record StandInRequest
{
    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteString("root"u8, Root);
        writer.WriteString("id"u8, Id);
        writer.WriteOptional("bundle"u8, Bundle);
        if (Vm is not null)
        {
            writer.WritePropertyName("vm"u8);
            HandJson.WriteObject(writer, Vm);
        }

        if (Process is not null)
        {
            writer.WritePropertyName("process"u8);
            JsonMembers.Write(writer, Process);
        }

        writer.WriteOptional("cgroup"u8, Cgroup);
        writer.WriteBoolean("foreground"u8, Foreground);
        writer.WriteBoolean("transient"u8, Transient);
        writer.WriteBoolean("hasTerminalFd"u8, HasTerminalFd);
        writer.WriteOptional("consoleSocket"u8, ConsoleSocket);
        writer.WriteBoolean("systemdCgroup"u8, SystemdCgroup);
        writer.WriteOptional("logFile"u8, LogFile);
        writer.WriteBoolean("logJson"u8, LogJson);
        writer.WriteBoolean("debug"u8, Debug);
        writer.WriteNumber("began"u8, Began);
    }

    public static StandInRequest ReadMembers(ref Utf8JsonReader reader)
    {
        string root = "", id = "";
        StandInRequest request = new() { Root = root, Id = id };
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "root"u8))
            {
                root = reader.GetString()!;
            }
            else if (HandJson.Is(ref reader, "id"u8))
            {
                id = reader.GetString()!;
            }
            else if (HandJson.Is(ref reader, "bundle"u8))
            {
                request.Bundle = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "vm"u8))
            {
                request.Vm = HandJson.ReadObject<VmOptions>(ref reader);
            }
            else if (HandJson.Is(ref reader, "process"u8))
            {
                request.Process = JsonMembers.Read<Process>(ref reader, passOthers: true);
            }
            else if (HandJson.Is(ref reader, "foreground"u8))
            {
                request.Foreground = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "transient"u8))
            {
                request.Transient = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "cgroup"u8))
            {
                request.Cgroup = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "hasTerminalFd"u8))
            {
                request.HasTerminalFd = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "consoleSocket"u8))
            {
                request.ConsoleSocket = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "systemdCgroup"u8))
            {
                request.SystemdCgroup = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "logFile"u8))
            {
                request.LogFile = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "logJson"u8))
            {
                request.LogJson = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "debug"u8))
            {
                request.Debug = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "began"u8))
            {
                request.Began = reader.GetInt64();
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return request with { Root = root, Id = id };
    }
}
