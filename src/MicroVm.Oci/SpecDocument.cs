using MicroVm.Json;
using MicroVm.Oci.Config;

namespace MicroVm.Oci;

/// <summary>The specification's kinds of documents.</summary>
public static class SpecDocument
{
    /// <summary>A bundle's config.json.</summary>
    public static TableDocument<Spec> Config => new(passOthers: true, static () => new Spec());

    /// <summary>A process of <c>exec</c>.</summary>
    public static TableDocument<Process> Process => new(passOthers: true, static () => new Config.Process());

    /// <summary>Limits of <c>update</c>.</summary>
    public static TableDocument<Resources> Resources => new(passOthers: true, static () => new Config.Resources());
}
