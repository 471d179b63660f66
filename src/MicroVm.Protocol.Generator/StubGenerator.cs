using System;
using System.IO;
using System.Text;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Text;

namespace MicroVm.Protocol.Generator;

/// <summary>
/// Stubs of the service in each .proto file of a project, over ttrpc: <c>XServiceBase</c>, and, where the project has a partial class
/// <c>XClient</c> with a <c>TtrpcClient _client</c> and a <c>TimeSpan DefaultTimeout</c>, its methods.
/// </summary>
[Generator]
public sealed class StubGenerator : IIncrementalGenerator
{
    private static readonly DiagnosticDescriptor NotUnderstood = new(
        "MVP001", "Service not understood", "{0}: {1}", "MicroVm.Protocol", DiagnosticSeverity.Error, isEnabledByDefault: true);

    /// <inheritdoc/>
    public void Initialize(IncrementalGeneratorInitializationContext context)
    {
        IncrementalValuesProvider<(string Path, string Text)> files = context.AdditionalTextsProvider
            .Where(f => f.Path.EndsWith(".proto", StringComparison.Ordinal))
            .Select((f, cancel) => (f.Path, f.GetText(cancel)?.ToString() ?? ""));
        context.RegisterSourceOutput(files.Combine(context.CompilationProvider), (output, pair) => Write(output, pair.Left.Path, pair.Left.Text, pair.Right));
    }

    private static void Write(SourceProductionContext output, string path, string text, Compilation compilation)
    {
        ProtoService? service = ProtoService.Parse(text, out string? problem);
        if (problem is not null)
        {
            output.ReportDiagnostic(Diagnostic.Create(NotUnderstood, Location.None, Path.GetFileName(path), problem));
        }

        if (service is null)
        {
            return;
        }

        output.AddSource(service.Name + "ServiceBase.g.cs", SourceText.From(StubWriter.Server(service), Encoding.UTF8));
        if (compilation.GetTypeByMetadataName(service.CSharpNamespace + "." + service.Name + "Client") is not null)
        {
            output.AddSource(service.Name + "Client.g.cs", SourceText.From(StubWriter.Client(service), Encoding.UTF8));
        }
    }
}
