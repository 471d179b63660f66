using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// The configuration of a container, owned by its process on the host: parsed once, from the bytes that the command read, kept as
/// those bytes for later commands, and changed here alone. A bundle that changes after that read has no effect. The caller locks.
/// </summary>
internal sealed class KeptConfiguration
{
    private const uint Mode = 0b110_000_000;
    private readonly string _path;

    private KeptConfiguration(string folder, Spec spec)
    {
        _path = Path.Combine(folder, SpecReader.FileName);
        Spec = spec;
    }

    /// <summary>What is in force.</summary>
    internal Spec Spec { get; }

    /// <summary>Keeps <paramref name="json"/>, of which <paramref name="spec"/> was parsed, in the container's folder.</summary>
    /// <exception cref="LinuxException">It cannot be written.</exception>
    internal static KeptConfiguration Keep(string folder, ReadOnlySpan<byte> json, Spec spec)
    {
        KeptConfiguration kept = new(folder, spec);
        HostFile.Replace(kept._path, json, Mode);
        return kept;
    }

    /// <summary>Notes limits that hold from now on.</summary>
    /// <exception cref="SandboxException">They cannot be written; later updates build on them all the same.</exception>
    internal void ChangeResources(Resources resources)
    {
        (Spec.Linux ??= new Oci.Config.Linux()).Resources = resources;
        try
        {
            HostFile.Replace(_path, JsonRecords.Write(Spec), Mode);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the limits hold, but cannot be kept: {e.Message}", e);
        }
    }
}
