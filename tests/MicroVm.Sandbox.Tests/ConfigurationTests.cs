using FsCheck;
using FsCheck.Fluent;
using MicroVm.Sandbox.Configuration;

namespace MicroVm.Sandbox.Tests;

/// <summary>The configuration file.</summary>
public sealed class ConfigurationTests : IDisposable
{
    // Pieces of documents in any order, among arbitrary characters.
    private static readonly Gen<string> Texts = Gen.ListOf(Gen.OneOf(
        Gen.Elements("memory", "vcpus", "allowed-annotations", " = ", "=", "[", "]", "\"", "'", "\\", ",", "#", "\n", "1", "-", "true", "\"a\"", "['a']"),
        ArbMap.Default.GeneratorFor<char>().Select(c => c.ToString()))).Select(string.Concat);

    private readonly TempFolder _folder = new();

    [Fact]
    public void EveryKeyIsRead()
    {
        File.WriteAllText(_folder["m.toml"], """
            # sizes
            memory = 1_024   # MiB
            vcpus = 2
            max-vcpus = 6
            cpu-template = "x86-64-v3"
            kernel = '/boot/\guest'
            kernel-args = "a=\"1\" b\\"
            start-timeout = 30
            private-images = true
            template = true
            allowed-annotations = [
              "dev.microvm.memory", # one
              'dev.microvm.vcpus',
            ]
            """);
        RuntimeConfiguration read = RuntimeConfiguration.Load(_folder["m.toml"]);
        Assert.Equal((_folder["m.toml"], 1024, 2, "x86-64-v3"), (read.Path, read.MemoryMiB, read.Vcpus, read.CpuTemplate));
        Assert.Equal(("/boot/\\guest", "a=\"1\" b\\", 30, true), (read.Kernel, read.KernelArguments, read.StartTimeoutSeconds, read.PrivateImages));
        Assert.True(read.Template);
        Assert.False(read.MakesTemplates);
        RuntimeConfiguration background = RuntimeConfiguration.Parse("template = \"background\"", "f");
        Assert.True(background.Template == true && background.MakesTemplates);
        Assert.Equal(6, read.MaxVcpus);
        Assert.Equal(["dev.microvm.memory", "dev.microvm.vcpus"], read.AllowedAnnotations!);
    }

    [Theory]
    [InlineData("memory = 0", "line 1: memory must be a whole number of at least 1")]
    [InlineData("memory = 99999999999", "line 1: memory must be a whole number of at least 1")]
    [InlineData("memory = \"1\"", "line 1: memory must be a whole number of at least 1")]
    [InlineData("memory = 1.5", "line 1: \"1.5\" is no value")]
    [InlineData("\n\nkernel = \"vmlinux\"", "line 3: kernel must be an absolute path")]
    [InlineData("kernel = \"/k", "line 1: a string does not end on its line")]
    [InlineData("kernel = \"\"\"/k\"\"\"", "line 1: strings of several lines are not supported")]
    [InlineData("kernel = \"/\\u00e4\"", "line 1: the escape \\u is not supported")]
    [InlineData("private-images = yes", "line 1: \"yes\" is no value")]
    [InlineData("private-images = 1", "line 1: private-images must be true or false")]
    [InlineData("template = \"always\"", "line 1: template must be true, false or \"background\"")]
    [InlineData("template = 1", "line 1: template must be true, false or \"background\"")]
    [InlineData("allowed-annotations = \"*\"", "line 1: allowed-annotations must be an array of strings")]
    [InlineData("allowed-annotations = [1]", "line 1: expected a string in quotes")]
    [InlineData("allowed-annotations = [\"a\" \"b\"]", "line 1: expected , or ] in an array")]
    [InlineData("allowed-annotations = [\"a\",\n", "line 2: an array does not end")]
    [InlineData("[vm]\nmemory = 1", "line 1: tables are not supported")]
    [InlineData("a.b = 1", "line 1: expected a line of the form key = value")]
    [InlineData("memory 1", "line 1: expected a line of the form key = value")]
    [InlineData("memory = 1 vcpus = 2", "line 1: expected the end of the line after the value")]
    [InlineData("vcpus = 1\nvcpus = 2", "line 2: vcpus is set twice")]
    [InlineData("colour = 1", "line 1: unknown key colour; known are memory, vcpus, max-vcpus,")]
    public void WhatIsWrongIsSaidWithItsLine(string text, string expected) =>
        Assert.Contains("f, " + expected, Assert.Throws<SandboxException>(() => RuntimeConfiguration.Parse(text, "f")).Message, StringComparison.Ordinal);

    [Fact]
    public void AFileThatWasAskedForMustBeThere()
    {
        Assert.Contains("no such file", Assert.Throws<SandboxException>(() => RuntimeConfiguration.Load(_folder["none"])).Message, StringComparison.Ordinal);
        Assert.Equal(new RuntimeConfiguration { Path = "f" }, RuntimeConfiguration.Parse(" \n# nothing\n", "f"));
    }

    [Fact]
    public void AnyTextIsReadOrRefusedWithALine() => Prop.ForAll(Texts.ToArbitrary(), text =>
    {
        try
        {
            _ = RuntimeConfiguration.Parse(text, "f");
        }
        catch (SandboxException e)
        {
            Assert.StartsWith("f, line ", e.Message, StringComparison.Ordinal);
        }
    }).QuickCheckThrowOnFailure();

    public void Dispose() => _folder.Dispose();
}
