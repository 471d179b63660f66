using System.Text.Json;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// Sent to the process that owns a VM: a container that joins it. The command has resolved and opened everything, since that
/// process may not: descriptors travel beside this document, in the order of <see cref="JoinFiles"/>.
/// </summary>
internal sealed record JoinRequest : IHandJson<JoinRequest>
{
    /// <summary>What the command was asked for.</summary>
    public required StandInRequest Request { get; init; }

    /// <summary>The first state: what is the sandbox's to say is filled in there.</summary>
    public required ContainerState State { get; init; }

    /// <summary>Where version 2 of the cgroups is mounted on the host; null when it is not.</summary>
    public string? UnifiedMount { get; set; }

    /// <summary>The exports without their descriptors, the root file system first.</summary>
    public List<JoinExport> Exports { get; } = [];

    /// <summary>Paths of the host's sockets that are mounted by themselves; the ports count from 0.</summary>
    public List<string> Sockets { get; init; } = [];

    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WritePropertyName("request"u8);
        HandJson.WriteObject(writer, Request);
        writer.WritePropertyName("state"u8);
        HandJson.WriteObject(writer, State);
        writer.WriteOptional("unifiedMount"u8, UnifiedMount);
        writer.WriteOptional("sockets"u8, Sockets);
        writer.WriteStartArray("exports"u8);
        Exports.ForEach(e => HandJson.WriteObject(writer, e));
        writer.WriteEndArray();
    }

    public static JoinRequest ReadMembers(ref Utf8JsonReader reader)
    {
        StandInRequest? request = null;
        ContainerState? state = null;
        string? unifiedMount = null;
        List<string> sockets = [];
        List<JoinExport> exports = [];
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "request"u8))
            {
                request = HandJson.ReadObject<StandInRequest>(ref reader);
            }
            else if (HandJson.Is(ref reader, "state"u8))
            {
                state = HandJson.ReadObject<ContainerState>(ref reader);
            }
            else if (HandJson.Is(ref reader, "unifiedMount"u8))
            {
                unifiedMount = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "sockets"u8))
            {
                sockets = HandJson.ReadList(ref reader);
            }
            else if (HandJson.Is(ref reader, "exports"u8))
            {
                while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
                {
                    exports.Add(HandJson.ReadObject<JoinExport>(ref reader));
                }
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        JoinRequest read = new()
        {
            Request = request ?? throw new JsonException("no request"),
            State = state ?? throw new JsonException("no state"),
            UnifiedMount = unifiedMount,
            Sockets = sockets,
        };
        read.Exports.AddRange(exports);
        return read;
    }
}

/// <summary>An <see cref="Export"/> without its descriptors.</summary>
internal sealed record JoinExport : IHandJson<JoinExport>
{
    /// <summary>Its name, which no other container of the VM has.</summary>
    public string Name { get; set; } = "";

    /// <summary>Nothing can be changed through it.</summary>
    public bool ReadOnly { get; set; }

    /// <summary>A regular file.</summary>
    public bool IsFile { get; set; }

    /// <summary>A second descriptor follows: <see cref="Export.Tree"/>.</summary>
    public bool HasTree { get; set; }

    /// <summary>As <see cref="Export.ReadOnlyBelow"/>.</summary>
    public bool ReadOnlyBelow { get; set; }

    /// <summary>As <see cref="Export.HidesMounts"/>.</summary>
    public bool HidesMounts { get; set; }

    /// <summary>As <see cref="Export.ShowsSockets"/>.</summary>
    public bool ShowsSockets { get; set; }

    /// <summary>The description of an export.</summary>
    internal static JoinExport Of(Export export) => new()
    {
        Name = export.Name,
        ReadOnly = export.ReadOnly,
        IsFile = export.IsFile,
        HasTree = export.Tree is not null,
        ReadOnlyBelow = export.ReadOnlyBelow,
        HidesMounts = export.HidesMounts,
        ShowsSockets = export.ShowsSockets,
    };

    /// <summary>The export, which takes the descriptors over.</summary>
    /// <param name="next">Gives the next descriptor.</param>
    internal Export ToExport(Func<SafeFd> next) => new(Name, next(), ReadOnly, IsFile)
    {
        Tree = HasTree ? next() : null,
        ReadOnlyBelow = ReadOnlyBelow,
        HidesMounts = HidesMounts,
        ShowsSockets = ShowsSockets,
    };

    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteString("name"u8, Name);
        writer.WriteBoolean("readOnly"u8, ReadOnly);
        writer.WriteBoolean("isFile"u8, IsFile);
        writer.WriteBoolean("hasTree"u8, HasTree);
        writer.WriteBoolean("readOnlyBelow"u8, ReadOnlyBelow);
        writer.WriteBoolean("hidesMounts"u8, HidesMounts);
        writer.WriteBoolean("showsSockets"u8, ShowsSockets);
    }

    public static JoinExport ReadMembers(ref Utf8JsonReader reader)
    {
        JoinExport export = new();
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "name"u8))
            {
                export.Name = reader.GetString() ?? "";
            }
            else if (HandJson.Is(ref reader, "readOnly"u8))
            {
                export.ReadOnly = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "isFile"u8))
            {
                export.IsFile = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "hasTree"u8))
            {
                export.HasTree = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "readOnlyBelow"u8))
            {
                export.ReadOnlyBelow = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "hidesMounts"u8))
            {
                export.HidesMounts = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "showsSockets"u8))
            {
                export.ShowsSockets = reader.GetBoolean();
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return export;
    }
}
