using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// Sent to the process that owns a VM: a container that joins it. The command has resolved and opened everything, since that
/// process may not: descriptors travel beside this document, in the order of <see cref="JoinFiles"/>.
/// </summary>
internal sealed record JoinRequest : IJsonDocument<JoinRequest>
{
    /// <summary>What the command was asked for.</summary>
    public required ProxyRequest Request { get; set; }

    /// <summary>The first state: what is the sandbox's to say is filled in there.</summary>
    public required ContainerState State { get; set; }

    /// <summary>Where version 2 of the cgroups is mounted on the host; null when it is not.</summary>
    public string? UnifiedMount { get; set; }

    /// <summary>The exports without their descriptors, the root file system first.</summary>
    public List<JoinExport> Exports { get; set; } = [];

    /// <summary>Paths of the host's sockets that are mounted by themselves; the ports count from 0.</summary>
    public List<string> Sockets { get; set; } = [];

    string? IJsonRecord.Missing => Request is null ? "request" : State is null ? "state" : Sockets is null || Sockets.Contains(null!) ? "sockets" : Exports is null || Exports.Contains(null!) ? "exports" : null;

    /// <inheritdoc/>
    public static JoinRequest Empty() => new() { Request = null!, State = null! };

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Request = members.Object("request"u8, Request, ProxyRequest.Empty)!;
        State = members.Object("state"u8, State, ContainerState.Empty)!;
        UnifiedMount = members.Text("unifiedMount"u8, UnifiedMount);
        Sockets = members.Texts("sockets"u8, Sockets)!;
        Exports = members.Objects("exports"u8, Exports)!;
    }
}

/// <summary>An <see cref="Export"/> without its descriptors.</summary>
internal sealed record JoinExport : IJsonRecord
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

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Name = members.NonNullText("name"u8, Name);
        ReadOnly = members.Flag("readOnly"u8, ReadOnly);
        IsFile = members.Flag("isFile"u8, IsFile);
        HasTree = members.Flag("hasTree"u8, HasTree);
        ReadOnlyBelow = members.Flag("readOnlyBelow"u8, ReadOnlyBelow);
        HidesMounts = members.Flag("hidesMounts"u8, HidesMounts);
        ShowsSockets = members.Flag("showsSockets"u8, ShowsSockets);
    }
}
