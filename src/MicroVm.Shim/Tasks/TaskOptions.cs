using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Configuration;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Api;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Tasks;

/// <summary>The options that containerd hands through to a runtime (runtimeoptions.v1): a configuration file, by its path or its text.</summary>
internal static class TaskOptions
{
    /// <summary>The only type of options there is.</summary>
    internal const string TypeUrl = "runtimeoptions.v1.Options";

    /// <summary>Reads the options; without any, the host's configuration file, where it exists.</summary>
    /// <exception cref="TtrpcException">InvalidArgument: the options are of another runtime, or malformed.</exception>
    /// <exception cref="SandboxException">The file cannot be read, or has an unknown key.</exception>
    internal static VmOptions Read(Any? any)
    {
        RuntimeConfiguration configuration = Configuration(any);
        return new VmOptions
        {
            DefaultMemoryMiB = configuration.MemoryMiB,
            DefaultVcpus = configuration.Vcpus,
            MaxVcpus = configuration.MaxVcpus,
            CpuTemplate = configuration.CpuTemplate,
            Kernel = configuration.Kernel,
            KernelArguments = configuration.KernelArguments,
            StartTimeoutSeconds = configuration.StartTimeoutSeconds,
            PrivateImages = configuration.PrivateImages ?? false,
            Template = configuration.Template ?? false,
            MakesTemplates = configuration.MakesTemplates,
            AllowedAnnotations = configuration.AllowedAnnotations is { } allowed ? string.Join(',', allowed) : null,
        };
    }

    private static RuntimeConfiguration Configuration(Any? any)
    {
        if (any is null || (any.TypeUrl.Length == 0 && any.Value.IsEmpty))
        {
            return RuntimeConfiguration.Load(null);
        }

        if (any.TypeUrl[(any.TypeUrl.LastIndexOf('/') + 1)..] != TypeUrl)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"options of type {any.TypeUrl} are not supported: io.containerd.microvm.v2 takes {TypeUrl}");
        }

        Options options;
        try
        {
            options = Options.Parser.ParseFrom(any.Value);
        }
        catch (InvalidProtocolBufferException e)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"options of type {TypeUrl} are malformed: {e.Message}", e);
        }

        return options.ConfigBody.Length > 0 ? RuntimeConfiguration.Parse(options.ConfigBody.ToStringUtf8(), "options.config_body")
            : RuntimeConfiguration.Load(options.ConfigPath.Length > 0 ? options.ConfigPath : null);
    }
}
