using System.Text.Json;
using MicroVm.Json;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.State;

public sealed partial record ContainerState
{
    /// <summary>Names of the states.</summary>
    internal static readonly EnumNames<ContainerStatus> StatusNames = new(
        (ContainerStatus.Creating, "creating"),
        (ContainerStatus.Created, "created"),
        (ContainerStatus.Running, "running"),
        (ContainerStatus.Paused, "paused"),
        (ContainerStatus.Stopped, "stopped"));

    void IHandJson<ContainerState>.WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteNumber("formatVersion"u8, FormatVersion);
        writer.WriteString("ociVersion"u8, OciVersion);
        writer.WriteString("id"u8, Id);
        writer.WriteString("bundle"u8, Bundle);
        writer.WriteString("rootfs"u8, Rootfs);
        writer.WriteString("created"u8, Created);
        writer.WriteNumber("owner"u8, Owner);
        writer.WritePropertyName("init"u8);
        HandJson.WriteObject(writer, Init);
        if (Vmm is not null)
        {
            writer.WritePropertyName("vmm"u8);
            HandJson.WriteObject(writer, Vmm);
        }

        if (Sandbox is not null)
        {
            writer.WritePropertyName("sandbox"u8);
            HandJson.WriteObject(writer, Sandbox);
        }

        writer.WriteOptional("vmFolder"u8, VmFolder);
        writer.WriteString("status"u8, StatusNames.Of(Status));
        writer.WriteOptional("networkNamespace"u8, NetworkNamespace);
        writer.WriteOptional("annotations"u8, Annotations);
        if (Hooks is not null)
        {
            writer.WritePropertyName("hooks"u8);
            JsonSerializer.Serialize(writer, Hooks, StateJson.Default.Hooks);
        }

        writer.WriteOptional("cgroups"u8, Cgroups);
        writer.WriteNumber("vmMemoryMiB"u8, VmMemoryMiB);
        writer.WriteBoolean("transient"u8, Transient);
    }

    static ContainerState IHandJson<ContainerState>.ReadMembers(ref Utf8JsonReader reader)
    {
        int formatVersion = 0, vmMemoryMiB = 0;
        string? ociVersion = null, id = null, bundle = null, rootfs = null, networkNamespace = null, vmFolder = null;
        DateTimeOffset created = default;
        uint owner = 0;
        ProcessIdentity? init = null, vmm = null, sandbox = null;
        ContainerStatus? status = null;
        SortedDictionary<string, string>? annotations = null, cgroups = null;
        Hooks? hooks = null;
        bool isTransient = false;
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "formatVersion"u8))
            {
                formatVersion = reader.GetInt32();
                if (formatVersion != CurrentFormat)
                {
                    throw new SandboxException(
                        $"a container's state has format version {formatVersion}, this microvm knows version {CurrentFormat}: use the microvm that created the container");
                }
            }
            else if (HandJson.Is(ref reader, "ociVersion"u8))
            {
                ociVersion = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "id"u8))
            {
                id = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "bundle"u8))
            {
                bundle = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "rootfs"u8))
            {
                rootfs = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "created"u8))
            {
                created = reader.GetDateTimeOffset();
            }
            else if (HandJson.Is(ref reader, "owner"u8))
            {
                owner = reader.GetUInt32();
            }
            else if (HandJson.Is(ref reader, "init"u8))
            {
                init = HandJson.ReadObject<ProcessIdentity>(ref reader);
            }
            else if (HandJson.Is(ref reader, "vmm"u8))
            {
                vmm = HandJson.ReadObject<ProcessIdentity>(ref reader);
            }
            else if (HandJson.Is(ref reader, "sandbox"u8))
            {
                sandbox = HandJson.ReadObject<ProcessIdentity>(ref reader);
            }
            else if (HandJson.Is(ref reader, "vmFolder"u8))
            {
                vmFolder = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "status"u8))
            {
                status = StatusNames.Read(ref reader);
            }
            else if (HandJson.Is(ref reader, "networkNamespace"u8))
            {
                networkNamespace = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "annotations"u8))
            {
                annotations = HandJson.ReadTexts(ref reader);
            }
            else if (HandJson.Is(ref reader, "hooks"u8))
            {
                hooks = JsonSerializer.Deserialize(ref reader, StateJson.Default.Hooks);
            }
            else if (HandJson.Is(ref reader, "cgroups"u8))
            {
                cgroups = HandJson.ReadTexts(ref reader);
            }
            else if (HandJson.Is(ref reader, "vmMemoryMiB"u8))
            {
                vmMemoryMiB = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "transient"u8))
            {
                isTransient = reader.GetBoolean();
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return new ContainerState
        {
            FormatVersion = formatVersion,
            OciVersion = ociVersion ?? throw new JsonException("no ociVersion"),
            Id = id ?? throw new JsonException("no id"),
            Bundle = bundle ?? throw new JsonException("no bundle"),
            Rootfs = rootfs ?? throw new JsonException("no rootfs"),
            Created = created,
            Owner = owner,
            Init = init ?? throw new JsonException("no init"),
            Vmm = vmm,
            Sandbox = sandbox,
            VmFolder = vmFolder,
            Status = status ?? throw new JsonException("no status"),
            NetworkNamespace = networkNamespace,
            Annotations = annotations,
            Hooks = hooks,
            Cgroups = cgroups,
            VmMemoryMiB = vmMemoryMiB,
            Transient = isTransient,
        };
    }
}
