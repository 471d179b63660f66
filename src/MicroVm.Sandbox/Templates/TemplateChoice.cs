using MicroVm.Linux;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Templates;

/// <summary>Decides whether a VM starts from a template.</summary>
internal static class TemplateChoice
{
    /// <summary>The template to start from; null to boot.</summary>
    /// <param name="options">Whether templates are to be used.</param>
    /// <param name="files">The runtime's files.</param>
    /// <param name="shape">The VM's size.</param>
    /// <param name="network">Its interfaces.</param>
    /// <param name="log">Told why there is none.</param>
    /// <param name="missing">What is to be made in the background: null where nothing is.</param>
    /// <exception cref="SandboxException">There is one that cannot be trusted or opened.</exception>
    internal static Template? For(VmOptions options, RuntimeFiles files, VmShape shape, VmNetwork network, Action<LogLevel, string> log, out MissingTemplate? missing)
    {
        missing = null;
        if (!options.Template)
        {
            return null;
        }

        try
        {
            string? reason = network.Interfaces > TemplateShape.MostInterfaces
                ? $"it has {network.Interfaces} network interfaces, a template has room for {TemplateShape.MostInterfaces}"
                : null;
            TemplateKey? key = reason is null ? TemplateKey.Of(files, shape) : null;
            Template? template = key is null ? null : new TemplateStore().TryOpen(key);
            log(LogLevel.Debug, template is not null ? $"the VM starts from template {template.Name}"
                : $"the VM boots: {reason ?? (key is null ? "its kernel, kernel arguments or images are its own" : $"there is no template {key.Name} (microvm template create)")}");

            // What templates are made of otherwise is what a VM has that is not asked for anything.
            missing = template is null && key is not null && options.MakesTemplates && shape.MapsFiles
                ? new MissingTemplate { MemoryMiB = shape.MemoryMiB, Vcpus = shape.Vcpus, MaxVcpus = shape.MaxVcpus, CpuTemplate = shape.CpuTemplate, TimeoutSeconds = (int)options.StartTimeout.TotalSeconds }
                : null;
            return template;
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the VM's template: {e.Message}", e);
        }
    }
}
