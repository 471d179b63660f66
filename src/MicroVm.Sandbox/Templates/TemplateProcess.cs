using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Templates;

/// <summary>A process that makes a template while the command that started it goes on, and ends.</summary>
internal static class TemplateProcess
{
    /// <summary>Starts it: in a session of its own, with no stream of the command's.</summary>
    /// <param name="template">What is to be made.</param>
    /// <exception cref="LinuxException">It cannot be started.</exception>
    internal static void Start(MissingTemplate template)
    {
        using SafeFd nothing = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/null");
        Spawn spawn = new()
        {
            File = Environment.ProcessPath!,

            // The size is what the command made of its configuration file.
            Arguments =
            [
                "microvm", "--config", "/dev/null", "--max-vcpus", Text(template.MaxVcpus), "template", "create", "--background",
                "--vm-memory", Text(template.MemoryMiB), "--vcpus", Text(template.Vcpus), "--cpu-template", template.CpuTemplate, "--start-timeout", Text(template.TimeoutSeconds),
            ],
            Environment = [.. ProxyClient.OwnEnvironment()],
            NewSession = true,
            WorkingDirectory = "/",
        };
        spawn.Add(nothing);
        spawn.Add(nothing);
        spawn.Add(nothing);
        spawn.Start().Dispose();
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}
